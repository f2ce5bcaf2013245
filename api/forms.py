"""Multipart forms as clients of other services send them: many fields, some files, lists by ``name[]``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import UploadFile

from api.bodies import media_type, parse_form, too_large
from fluxfarm.errors import UnsupportedMediaType

MAX_FILES: Final = 16
MAX_FIELDS: Final = 100
FIELD_BYTES: Final = 64 * 1024  #: of one field of text
OVERHEAD: Final = 256 * 1024  #: bytes of boundaries, headers and fields beside the files
_INDEXED: Final = re.compile(r"(.+?)(?:\[(\d{0,3})\]|_(\d{1,3}))")  #: ``image[]``, ``image[0]``, ``image_0``
_LITERAL: Final = re.compile(r"true|false|null|-?\d{1,18}|-?\d{1,12}\.\d{1,12}")


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form; its type is a stranger's word and not kept."""

    name: str  #: of the part, without its index
    body: bytes
    filename: str = ""  #: a stranger's word: to be shown to its owner, never opened


@dataclass(frozen=True, slots=True)
class Form:
    """The fields by name, a repeated one as a list, and the files in their order."""

    fields: dict[str, Any]
    files: tuple[FormFile, ...]


async def read_form(request: Request, limit: int) -> Form:
    """The form of a call whose body nobody has read; each file has at most ``limit`` bytes, all together four times.

    Raises:
        UnsupportedMediaType: no multipart form.
        MalformedBody: damaged, or more than 16 files or 100 fields, or NUL or half a surrogate pair in a text.
        PayloadTooLarge: over the limit.
    """
    if media_type(request)[0] != "multipart/form-data":
        raise UnsupportedMediaType("Send the call as multipart/form-data.")
    damaged = f"The multipart form is damaged, or has more than {MAX_FILES} files or {MAX_FIELDS} fields."
    form = await parse_form(
        request, 4 * limit + OVERHEAD, damaged, files=MAX_FILES, fields=MAX_FIELDS, field_bytes=FIELD_BYTES
    )
    try:
        texts, files = list[tuple[str, str]](), list[FormFile]()
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                body = await value.read()
                if len(body) > limit:
                    raise too_large(limit)
                files.append(FormFile(name, body, value.filename or ""))
            else:
                texts.append((name, value))
    finally:
        await form.close()
    return Form(fields_of(texts), tuple(in_order(files)))


def in_order(files: Sequence[FormFile]) -> list[FormFile]:
    """By the indexes of their names (``image_1`` behind ``image_0``), else as they came; the indexes taken away."""
    found = [(_INDEXED.fullmatch(file.name), file) for file in files]
    ranked = [
        (int(match[2] or match[3] or 0) if match else 0, replace(file, name=match[1]) if match else file)
        for match, file in found
    ]
    return [file for _, file in sorted(ranked, key=lambda one: one[0])]


def fields_of(texts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The fields; ``name[]`` and a repeated name are lists."""
    found: dict[str, Any] = {}
    for name, text in texts:
        plain = name.removesuffix("[]")
        if plain != name:
            found.setdefault(plain, [])
        if plain not in found:
            found[plain] = text
        elif isinstance(found[plain], list):
            found[plain].append(text)
        else:
            found[plain] = [found[plain], text]
    return found


def literal(text: Any) -> Any:
    """A number, a switch or null behind its text; anything else as it is."""
    return json.loads(text) if isinstance(text, str) and _LITERAL.fullmatch(text) else text
