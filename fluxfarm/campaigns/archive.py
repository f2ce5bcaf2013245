"""A ZIP written as it is sent: stored entries, each with its checksum in front, and the whole length known beforehand.

Pictures do not get smaller by deflating. One of them is in memory at a time, and nothing touches the disk. The form is
APPNOTE 6.3.10; the 64-bit fields appear where 32 bits do not reach (archives above 4 GiB, more than 65,535 files).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

MAX_32: Final = 0xFFFFFFFF
MAX_16: Final = 0xFFFF
UTF8: Final = 0x800  #: general purpose bit 11: the name is UTF-8
MADE_BY: Final = 0x0300 | 63  #: Unix, version 6.3
FILE_MODE: Final = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive: ``size`` bytes, which ``read`` gives when their turn has come."""

    name: str
    size: int
    read: Callable[[], bytes]


class EntryChanged(RuntimeError):
    """A file is not as long as it was said to be; the archive cannot be finished."""


def length(entries: Sequence[Entry]) -> int:
    """Bytes of the archive."""
    offset = central = 0
    for entry in entries:
        name = len(entry.name.encode())
        central += 46 + name + (12 if offset >= MAX_32 else 0)
        offset += 30 + name + entry.size
    return offset + central + len(_ending(len(entries), central, offset))


def stream(entries: Sequence[Entry], moment: datetime) -> Iterator[bytes]:
    """The archive in pieces; ``moment`` is the time of its files.

    Raises:
        EntryChanged: a file has another length than its entry.
    """
    date = (max(1980, moment.year) - 1980) << 9 | moment.month << 5 | moment.day
    time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
    offset = central_length = 0
    central: list[bytes] = []
    for entry in entries:
        body = entry.read()
        if len(body) != entry.size or entry.size >= MAX_32:
            raise EntryChanged(f"{entry.name} has {len(body)} bytes, not {entry.size}.")
        name = entry.name.encode()
        common = struct.pack("<HHHHHIII", 20, UTF8, 0, time, date, zlib.crc32(body), len(body), len(body))
        yield b"PK\x03\x04" + common + struct.pack("<HH", len(name), 0) + name
        yield body
        line = _central_line(name, common, offset)
        central.append(line)
        central_length += len(line)
        offset += 30 + len(name) + len(body)
    yield from central
    yield _ending(len(entries), central_length, offset)


def _central_line(name: bytes, common: bytes, offset: int) -> bytes:
    extra = struct.pack("<HHQ", 1, 8, offset) if offset >= MAX_32 else b""
    version = 45 if extra else 20
    head = b"PK\x01\x02" + struct.pack("<HH", MADE_BY, version) + common[2:]
    tail = struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, FILE_MODE, min(offset, MAX_32))
    return head + tail + name + extra


def _ending(count: int, size: int, offset: int) -> bytes:
    large = b""
    if count >= MAX_16 or offset >= MAX_32 or size >= MAX_32:
        large = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
        large += b"PK\x06\x07" + struct.pack("<IQI", 0, offset + size, 1)
    few = min(count, MAX_16)
    return large + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, few, few, min(size, MAX_32), min(offset, MAX_32), 0)
