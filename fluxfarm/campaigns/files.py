"""A campaign on this machine's disk: the specification, and the rows and pictures that lie beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fluxfarm.campaigns.expansion import expand
from fluxfarm.campaigns.rows import rows_in
from fluxfarm.campaigns.source import Marks, invalid, read_source, with_rows
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import InvalidCampaign, InvalidReference, Issue

REMOTE: Final = ("ref_", "https://", "http://")
MAX_BYTES: Final = 256 * 2**20  #: of one file


@dataclass(frozen=True, slots=True)
class Loaded:
    """A specification with its rows inside; ``pictures`` are the files that its references name."""

    spec: Spec
    marks: Marks
    path: Path
    rows_path: Path | None
    pictures: dict[str, Path]

    def told(self, error: InvalidCampaign) -> InvalidCampaign:
        """The error with lines and columns of the file, also when the farm found it."""
        return invalid([self._placed(issue) for issue in error.issues], error.total) if error.issues else error

    def _placed(self, issue: Issue) -> Issue:
        """With its file in front of the sentence, as it may be one of two."""
        placed = self.marks.locate(issue)
        file = self.rows_path if issue.is_in_rows and self.rows_path is not None else self.path
        return replace(placed, file=str(file))

    def with_uploads(self, upload: Callable[[Path], str]) -> Spec:
        """The specification that the farm takes: each picture uploaded once and named by its id.

        Raises:
            InvalidCampaign: the farm takes a picture for none.
        """
        files = dict(self.spec.files)
        for text, path in self.pictures.items():
            try:
                files[text] = upload(path)
            except InvalidReference as error:
                raise invalid(
                    [self.marks.locate(Issue(message=f"{path}: {error.message}", param="references"))]
                ) from None
        return self.spec.model_copy(update={"files": files}) if files else self.spec


def load(path: Path) -> Loaded:
    """Read a specification and its rows, expand it once, and see that its pictures are there.

    Raises:
        InvalidCampaign: with line and column; nothing was sent anywhere.
    """
    source = read_source(_read(path, "The campaign"))
    spec, rows_path = source.spec, None
    if spec.rows is not None and spec.rows.file is not None:
        rows_path = path.parent / spec.rows.file
        try:
            text = _read(rows_path, "The rows")
        except InvalidCampaign as error:
            issue = Issue(message=error.issues[0].message, param="rows")
            raise invalid([source.marks.locate(issue)]) from None
        spec = with_rows(spec, rows_in(rows_path.name, text))
    loaded = Loaded(spec, source.marks, path, rows_path, {})
    try:
        return Loaded(spec, source.marks, path, rows_path, _pictures(spec, path.parent))
    except InvalidCampaign as error:
        raise loaded.told(error) from None


def _read(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise invalid([Issue(message=f"{what} at {path} is larger than {MAX_BYTES // 2**20} MB.")])
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{what} at {path} is not UTF-8 (byte {error.start}); save it as UTF-8."
        raise invalid([Issue(message=message)]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise invalid([Issue(message=f"{what} at {path} cannot be read: {reason}.")]) from None


def _pictures(spec: Spec, folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    issues: list[Issue] = []
    for asset in expand(spec).assets:
        for text in asset.references:
            if text in found or text in spec.files or text.startswith(REMOTE):
                continue
            path = found[text] = folder / text
            if not path.is_file():
                message = f"there is no picture {path}."
                issues.append(Issue(message=message, param="references", row=asset.row or None))
    if issues:
        raise invalid(issues)
    return found
