"""Words that no prompt may hold: whole words and phrases, whatever their case, or regular expressions.

Chinese, Japanese, Korean, Thai and their like do not part words as others do: theirs are found wherever they stand.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import regex

from fluxfarm.errors import InvalidField

LONGEST: Final = 200  #: characters of one entry
PATIENCE: Final = 0.5  #: seconds for one entry; an expression that nests its repeats could look for years
#: letters of scripts that put no space between words (or join endings to them): Thai to Khmer, kana, Han, Hangul
JOINED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
APART: Final = rf"[^\W{JOINED}]"  #: a letter that would make another word of the one beside it


def plain(text: str) -> str:
    """The text as it is compared: compatible letters made one, no case, nothing invisible, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(one for one in folded if unicodedata.category(one) != "Cf").split())


@dataclass(frozen=True)
class DenyList:
    """Entries in the order that they were given; ``/…/`` is a regular expression, anything else words."""

    entries: tuple[str, ...] = ()

    @classmethod
    def read(cls, entries: Iterable[str], param: str) -> DenyList:
        """Check each entry.

        Raises:
            InvalidField: an entry is empty, too long or no regular expression; ``param`` and its number say which.
        """
        kept = tuple(entries)
        for number, entry in enumerate(kept):
            _pattern(entry, f"{param}.{number}")
        return cls(kept)

    @classmethod
    def of_lines(cls, text: str, param: str) -> DenyList:
        """The entries of a file; ``#`` begins a comment, empty lines are nothing.

        Raises:
            InvalidField: as above.
        """
        lines = (line.strip() for line in text.splitlines())
        return cls.read([line for line in lines if line and not line.startswith("#")], param)

    @classmethod
    def of_file(cls, path: Path, param: str) -> DenyList:
        """The entries of the file at ``path``.

        Raises:
            InvalidField: as above, or the file cannot be read.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InvalidField(f"{path} cannot be read: {error.strerror}.", param=param) from None
        except UnicodeDecodeError:
            raise InvalidField(f"{path} is no text in UTF-8.", param=param) from None
        return cls.of_lines(lines, param)

    def __add__(self, other: DenyList) -> DenyList:
        """Both."""
        return DenyList(self.entries + other.entries)

    @cached_property
    def _patterns(self) -> list[regex.Pattern[str]]:
        return [_pattern(entry, "") for entry in self.entries]

    def find(self, prompt: str) -> int | None:
        """The place of the first entry that the prompt holds, from 0; None: it holds none.

        What cannot be decided in ``PATIENCE`` counts as held: the prompt is refused, and the worker goes on.
        """
        text = plain(prompt)
        return next((number for number, pattern in enumerate(self._patterns) if _holds(pattern, text)), None)


def _holds(pattern: regex.Pattern[str], text: str) -> bool:
    try:
        return pattern.search(text, timeout=PATIENCE) is not None
    except TimeoutError:
        return True


def _pattern(entry: str, param: str) -> regex.Pattern[str]:
    if not 1 <= len(entry) <= LONGEST:
        raise InvalidField(f"An entry has 1 to {LONGEST} characters.", param=param)
    if entry.startswith("/") and entry.endswith("/") and len(entry) > 2:  # noqa: PLR2004 - the two slashes
        try:
            return regex.compile(entry[1:-1], regex.IGNORECASE)
        except (regex.error, OverflowError, RecursionError) as error:
            raise InvalidField(f"{entry} is no regular expression: {error}.", param=param) from None
    words = plain(entry)
    if not words:
        raise InvalidField("An entry without a letter would be in every prompt.", param=param)
    before = "" if regex.match(f"[{JOINED}]", words) else f"(?<!{APART})"
    after = "" if regex.search(f"[{JOINED}]$", words) else f"(?!{APART})"
    return regex.compile(f"{before}{regex.escape(words)}{after}")
