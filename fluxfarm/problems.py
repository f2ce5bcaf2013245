"""From an HTTP reply or a finished record back to the same leaf of the error tree that the farm raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from uuid import UUID

import httpx

from fluxfarm import errors
from fluxfarm.airecord import AiRecord, Problem
from fluxfarm.errors import FluxfarmError, Issue, RenderError
from fluxfarm.jobs import JobState

BY_STATUS: Final[dict[int, type[FluxfarmError]]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    409: errors.Conflict,
    410: errors.Gone,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
    416: errors.RangeNotSatisfiable,
    429: errors.TooManyRequests,
    500: errors.InternalError,
}


def tree(root: type[FluxfarmError] = FluxfarmError) -> Iterator[type[FluxfarmError]]:
    """Every class below ``root``, parents first."""
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


BY_CODE: Final = {kind.code: kind for kind in tree()}


def kind_of(code: str, status: int) -> type[FluxfarmError]:
    """The class of this code; a code that this version does not know is judged by its HTTP status."""
    if code in BY_CODE:
        return BY_CODE[code]
    if status in BY_STATUS:
        return BY_STATUS[status]
    return errors.BadRequest if 400 <= status < 500 else errors.Unavailable  # noqa: PLR2004


def seconds_of(header: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, which is a number or an HTTP date; None when it is neither."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def from_response(response: httpx.Response, place: str) -> FluxfarmError:
    """The error behind a reply of 3xx, 4xx or 5xx; its body must have been read. ``place`` names who answered."""
    problem = _problem(response)
    code, detail = _text(problem, "code"), _text(problem, "detail") or _text(problem, "title")
    kind = kind_of(code, response.status_code)
    message = detail or f"{place} answered {response.status_code} {response.reason_phrase} and gave no reason."
    if response.has_redirect_location:
        target = response.headers["location"].partition("?")[0]
        message = f"{place} sends on to {target}; name that place as the farm's URL (FLUXFARM_URL)."
    if code and kind.code != code:
        message = f"{message} ({code})"
    retry_after = seconds_of(response.headers.get("retry-after"))
    error = kind(message, param=_text(problem, "param") or None, retry_after=retry_after, job=_job(problem))
    if isinstance(error, errors.InvalidCampaign):
        error.issues, error.total = _issues(problem)
    return error


def _issues(problem: dict[str, Any]) -> tuple[tuple[Issue, ...], int]:
    names = {field.name for field in fields(Issue)}
    told = [one for one in problem.get("issues") or () if isinstance(one, dict) and "message" in one]
    issues = tuple(_issue({name: one.get(name) for name in names}) for one in told)
    return issues, problem.get("total") or len(issues)


def _issue(told: dict[str, Any]) -> Issue:
    return Issue(**told)


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(problem: dict[str, Any], name: str) -> str:
    value = problem.get(name)
    return value if isinstance(value, str) else ""


def _job(problem: dict[str, Any]) -> UUID | None:
    try:
        return UUID(_text(problem, "job"))
    except ValueError:
        return None


def raise_for_record(record: AiRecord) -> AiRecord:
    """Give the record back unless its job ended badly.

    Raises:
        RenderError: the leaf of the record's error code; the class itself for a code from elsewhere in the tree.
        Canceled: somebody or a deadline stopped the job.
    """
    error = end_of(record.uuid, record.status, record.error)
    if error is not None:
        raise error
    return record


def end_of(uuid: UUID, status: JobState, problem: Problem | None) -> RenderError | None:
    """The error that a job ended with; None when it did not end badly, or has not ended."""
    if status not in (JobState.FAILED, JobState.CANCELED):
        return None
    fallback = errors.Canceled if status is JobState.CANCELED else RenderError
    if problem is None:
        return fallback(f"Job {uuid} is {status}; the farm gave no reason.", job=uuid)
    kind = BY_CODE.get(problem.code, fallback)
    if not issubclass(kind, RenderError):
        kind = fallback
    suffix = "" if kind.code == problem.code else f" ({problem.code})"
    return kind(problem.message + suffix, job=uuid)
