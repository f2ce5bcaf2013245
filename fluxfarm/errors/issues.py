"""One thing that is wrong with a campaign, and where: in its specification, or in one cell of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Lines, columns and rows count from 1; None where it does not apply or is not known."""

    message: str
    param: str | None = None  #: dotted path in the specification
    row: int | None = None  #: of the data, the header not counted
    field: str | None = None  #: name of the row's column
    line: int | None = None  #: of the file that is at fault: the specification, or the rows when there is a row
    column: int | None = None
    file: str | None = None  #: set by who knows the files

    @property
    def is_in_rows(self) -> bool:
        """Whether the rows are at fault, and not the specification."""
        return self.row is not None

    def at(self, line: int, column: int) -> Issue:
        """The same with its place in the text."""
        return replace(self, line=line, column=column)

    def __str__(self) -> str:
        places = [] if self.file is None else [self.file]
        numbers = (("row", self.row), ("line", self.line), ("column", self.column))
        places += [f"{word} {value}" for word, value in numbers if value is not None]
        if self.field is not None:
            places.append(f"field {self.field!r}")
        elif self.param is not None:
            places.append(self.param)
        return f"{', '.join(places)}: {self.message}" if places else self.message
