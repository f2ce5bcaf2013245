"""Processes and all that descend from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def family(roots: Iterable[int]) -> set[int]:
    """The process ids of the roots and of all their descendants, as Linux tells them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    todo, found = list(roots), set[int]()
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found
