"""File names that are safe on every system and in every archive; what is unsafe is an error, never quietly changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from fluxfarm.campaigns.templates import Template

MAX_BYTES: Final = 180  #: of the whole name in UTF-8; what Windows' 260 leave for the folder it is unpacked in
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _-]*")
_PLAIN_NAME: Final = re.compile(
    r"[0-9][A-Za-z0-9_-]{0,99}\.[a-z]{3,4}|[b-z][a-z0-9_-]{6,99}\.[a-z]{3,4}"
)  #: no device's
_FORBIDDEN: Final = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]')
_RESERVED: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


class NameFault(ValueError):
    """Why a picture cannot have its name; ``field`` is the value at fault, None when it is the whole name."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


def file_name(pattern: Template, values: Mapping[str, str], extension: str) -> str:
    """The name that the pattern gives, with its folders and its extension.

    Raises:
        NameFault: a value or the whole cannot stand in a name.
    """
    pieces = pattern.pieces(values)
    for text, field in pieces:
        fault = None if field is None or _PLAIN.fullmatch(text) else value_fault(text)
        if fault is not None:
            raise NameFault(fault, field)
    name = "".join([text for text, _ in pieces])
    if not name.lower().endswith(f".{extension}"):
        name = f"{name}.{extension}"
    fault = None if _PLAIN_NAME.fullmatch(name) else name_fault(name)
    if fault is not None:
        raise NameFault(fault, pattern.names[0] if len(pattern.names) == 1 else None)
    return name


def value_fault(value: str) -> str | None:
    """Why a value cannot stand in a file name; None: it can."""
    if "/" in value or "\\" in value:
        return "it has a path separator; use another column, or the filter |slug"
    found = _FORBIDDEN.search(value)
    if found is not None:
        return f"it has the character {found[0]!r}, which no file name may hold; use |slug"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in value):
        return "it has an invisible character; use |slug"
    return None


def name_fault(name: str) -> str | None:
    """Why a whole name, with its folders, cannot be used; None: it can."""
    if len(name.encode()) > MAX_BYTES:
        return f"the file name has {len(name.encode())} bytes; at most {MAX_BYTES} fit everywhere"
    for part in name.split("/"):
        if not part or part.strip(" .") == "":
            return f"the file name {name!r} has an empty part, or climbs out of its folder"
        if part.startswith((".", " ", "~", "-")) or part.endswith((".", " ")):
            return f"{part!r} begins or ends with a character that hides it, or that some systems drop"
        if _RESERVED.fullmatch(part):
            return f"{part!r} is the name of a device on Windows"
        if _FORBIDDEN.search(part):
            return f"{part!r} has a character that no file name may hold"
    return None


def folded(name: str) -> str:
    """What two names are compared by: systems that do not tell ``A`` from ``a``, or accents in two spellings apart."""
    return name if name.isascii() and name.islower() else unicodedata.normalize("NFC", name).casefold()
