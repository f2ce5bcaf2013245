"""Bodies with nothing guessed: "7" is no number, true is no 1, and an unknown name is an error with a suggestion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypedDict, TypeVar, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, ValidationError

from fluxfarm.errors import BadRequest, InvalidField, UnknownField

SHOWN = 60  #: characters of a caller's own name that a message repeats
PLAIN: Final = r"^[^\x00-\x1f\x7f]*$"  #: a text to look for


class Complaint(TypedDict):
    """The part of pydantic's error that is used; ``input`` is not."""

    type: str
    loc: tuple[int | str, ...]
    msg: str


Complaints = Sequence[Complaint]


class Strict(BaseModel):
    """A body, or a part of one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Body = TypeVar("Body", bound=Strict)


def read(model: type[Body], body: Any, *, strict: bool = True) -> Body:
    """The body as the model has it; not ``strict`` is for forms, where a number is its text.

    Raises:
        UnknownField: a name that the model does not have.
        InvalidField: a missing field, a value of the wrong type or out of its range.
    """
    try:
        return model.model_validate(body, strict=None if strict else False)  # None: as each field says
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        complaints: list[Complaint] = [{"type": e["type"], "loc": e["loc"], "msg": e["msg"]} for e in found]
        raise problem_of(complaints, model) from None


def problem_of(complaints: Complaints, model: type[BaseModel] | None = None) -> BadRequest:
    """The one error to tell; an unknown name comes first, as a misspelt field is also a missing one."""
    worst = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    if worst["type"] == "extra_forbidden":
        where = _path(worst["loc"])
        near = nearest(str(worst["loc"][-1]), _names(model, worst["loc"][:-1]))
        return UnknownField(f"{where!r} is no field here{near}", param=where)
    where = _path(_without_members(worst["loc"]))
    message = worst["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return InvalidField(f"{where or 'The body'}: {message[:1].lower()}{message[1:]}.", param=where or None)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of the sentence that refuses a name: the name that was perhaps meant."""
    found = get_close_matches(name[:SHOWN], sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else "."


def _no_number(given: Any) -> Any:
    if isinstance(given, str) and "T" not in given.upper():
        raise ValueError("should be RFC 3339, as 2030-03-01T12:00:00Z")
    return given


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("should lie in the years 1 to 9999 UTC") from None


#: a moment in a query; pydantic alone would take the seconds since 1970 too, and a day
QueryMoment = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]


def future(text: str | None, name: str, now: datetime) -> datetime | None:
    """The moment of a field.

    Raises:
        InvalidField: no RFC 3339, without a zone, or not after ``now``.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text) if "T" in text.upper() else None
        if moment is not None and moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidField(f"{name} must be RFC 3339 with a zone, as 2030-03-01T12:00:00Z.", param=name)
    if moment <= now:
        raise InvalidField(f"{name} has passed; name a time in the future.", param=name)
    return moment


def _path(location: Sequence[int | str]) -> str:
    """``promptObject.images.3``."""
    return ".".join(str(part)[:SHOWN] for part in location)


def _without_members(location: Sequence[int | str]) -> Sequence[int | str]:
    """The place without what pydantic adds for the member of a union, such as ``constrained-str``."""
    last = str(location[-1]) if location else ""
    return location[:-1] if last in {"float", "int", "str"} or "-" in last else location


def _names(model: type[BaseModel] | None, location: Sequence[int | str]) -> list[str]:
    if model is None:
        return []
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    if not location:
        return list(fields)
    annotation = fields.get(str(location[0]))
    inner = next(
        (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)), None
    )
    return _names(inner, location[1:])
