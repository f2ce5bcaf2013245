"""How a body comes in: counted while it arrives, then read as strict JSON or as one uploaded file."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, NoReturn

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.auth import Secret
from api.farm import FarmPart
from fluxfarm.errors import InvalidField, MalformedBody, PayloadTooLarge, UnknownField, UnsupportedMediaType

MAX_DEPTH: Final = 64
MULTIPART_OVERHEAD: Final = 16 * 1024  #: bytes that boundaries and part headers may take beside the file
FIELD: Final = "file"


async def capped(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in parts; more than ``limit`` bytes are never taken, whatever the headers say.

    Raises:
        PayloadTooLarge: by the declared or by the counted length.
    """
    declared = request.headers.get("content-length", "")
    taken = int(declared) if declared.isdecimal() and len(declared) < 20 else 0  # noqa: PLR2004 - digits of 64 bits
    if taken > limit:
        raise too_large(limit)
    taken = 0
    async for part in request.stream():
        taken += len(part)
        if taken > limit:
            raise too_large(limit)
        yield part


def too_large(limit: int) -> PayloadTooLarge:
    """The error of a body over the limit."""
    return PayloadTooLarge(f"The body has more than {limit:,} bytes, which is the limit here.")


def media_type(request: Request) -> tuple[str, str]:
    """The content type in lower case, and its parameters.

    Raises:
        UnsupportedMediaType: the body is compressed.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not taken; send it without Content-Encoding.")
    return kind.strip().lower(), parameters.strip().lower()


async def read_json_body(request: Request, farm: FarmPart, _key_first: Secret) -> bytes:
    """The raw body of a JSON call, not yet parsed.

    Raises:
        UnsupportedMediaType: another content type, or a charset that is not UTF-8.
        PayloadTooLarge: over ``FLUXFARM_BODY_LIMIT``.
    """
    kind, parameters = media_type(request)
    if kind != "application/json" or parameters.removeprefix("charset=").strip('"') not in ("", "utf-8"):
        raise UnsupportedMediaType("Send the body as Content-Type: application/json, in UTF-8.")
    return b"".join([part async for part in capped(request, farm.settings.body_limit)])


JsonBody = Annotated[bytes, Depends(read_json_body)]


async def parse_form(
    request: Request, limit: int, damaged: str, *, files: int, fields: int, field_bytes: int
) -> FormData:
    """The parts of a multipart form of at most ``limit`` bytes; whoever takes it closes it.

    Raises:
        MalformedBody: damaged, more parts than may be, or texts that no database takes; ``damaged`` words the former.
        PayloadTooLarge: over the limit.
    """
    parser = MultiPartParser(
        request.headers, capped(request, limit), max_files=files, max_fields=fields, max_part_size=field_bytes
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, AssertionError):  # python-multipart's own errors are ValueErrors
        raise MalformedBody(damaged) from None
    try:
        for name, value in form.multi_items():  # the caller chooses the charset: UTF-7, for one, can hold anything
            _check_text(name)
            _check_text(value if isinstance(value, str) else value.filename or "")
    except MalformedBody:
        await form.close()
        raise
    return form


async def read_upload(request: Request, limit: int) -> bytes:
    """The one file of a multipart form.

    Raises:
        UnsupportedMediaType: no multipart form.
        MalformedBody: a damaged form.
        InvalidField: no file, or two; UnknownField: another part.
        PayloadTooLarge: a file of more than ``limit`` bytes.
    """
    if media_type(request)[0] != "multipart/form-data":
        raise UnsupportedMediaType(f"Send the picture as multipart/form-data with one file in the field {FIELD!r}.")
    damaged = "The multipart form is damaged or holds more than one file."
    form = await parse_form(request, limit + MULTIPART_OVERHEAD, damaged, files=1, fields=1, field_bytes=1024)
    try:
        other = [name for name in form if name != FIELD]
        if other:
            raise UnknownField(f"The form has a part {other[0][:60]!r}; only {FIELD!r} is read.", param=other[0][:60])
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise InvalidField(f"The form has no file in the field {FIELD!r}.", param=FIELD)
        body = await file.read()
    finally:
        await form.close()
    if len(body) > limit:
        raise too_large(limit)
    return body


def parse_json(raw: bytes) -> dict[str, Any]:
    """A JSON object, with everything refused that readers disagree on.

    Raises:
        MalformedBody: not UTF-8, no JSON, no object; NaN, Infinity or a number beyond them (1e999); a name twice;
            deeper than 64 levels; NUL or half a surrogate pair in a text.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None
    try:
        found = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique
        )
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from None
    _check(found)
    if not isinstance(found, dict):
        raise MalformedBody("The body must be a JSON object.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON; leave the field out instead.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBody("A number in the body is too large for any computer to hold.")
    return number


def _whole(text: str) -> int:
    if len(text) > 1000:  # noqa: PLR2004 - Python itself refuses more than 4,300 digits, and slows down before
        raise MalformedBody("A number in the body has too many digits.")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedBody("A name stands twice in one object of the body; it is not clear which one counts.")
    return found


def _too_deep() -> MalformedBody:
    return MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _check(root: Any) -> None:
    """Walk without recursion; depth and texts."""
    level, nodes = 0, [root]
    while nodes:
        if level > MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for node in nodes:
            if isinstance(node, dict):
                below += [*node.keys(), *node.values()]
            elif isinstance(node, list):
                below += node
            elif isinstance(node, str):
                _check_text(node)
        level, nodes = level + 1, below


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MalformedBody("A text in the body holds NUL; take it out.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MalformedBody("A text in the body holds half a surrogate pair; send well-formed text.") from None
