"""``farm.json``: how the CLI and scripts find the farm that runs on this machine, and how they get in."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from fluxfarm import processes

NAME: Final = "farm.json"
PIDS: Final = "farm.pids"  #: the same processes with their start times, so that a recycled pid is not taken for ours
SUPERVISOR: Final = "supervisor"


@dataclass(frozen=True, slots=True)
class RunningFarm:
    """What ``farm.json`` holds; its secrets stay out of logs and tracebacks."""

    url: str
    api_key: str = field(repr=False)
    flower_url: str
    flower_user: str
    flower_password: str = field(repr=False)
    pids: dict[str, int]


def path_in(data_dir: Path) -> Path:
    """Where the file of a data folder is."""
    return data_dir.expanduser() / NAME


def write(data_dir: Path, farm: RunningFarm) -> None:
    """Replace the file in one step; only this user may read it."""
    new = data_dir / f"{NAME}.new"
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(farm), file, indent=2)
        file.write("\n")
    new.replace(path_in(data_dir))


def read(data_dir: Path) -> RunningFarm | None:
    """What the file says, true or stale; None: no file, not readable for this user, or broken."""
    try:
        content = json.loads(path_in(data_dir).read_text(encoding="utf-8"))
        texts = {
            name: str(content[name]) for name in ("url", "api_key", "flower_url", "flower_user", "flower_password")
        }
        return RunningFarm(**texts, pids={str(name): int(pid) for name, pid in content["pids"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find(data_dir: Path) -> RunningFarm | None:
    """The farm that runs on this data folder now; a file left behind by a killed farm does not count."""
    supervisor = processes.recall(data_dir.expanduser() / PIDS).get(SUPERVISOR)
    return read(data_dir) if supervisor is not None and supervisor.is_alive() else None


def remove(data_dir: Path) -> None:
    """Forget the farm."""
    path_in(data_dir).unlink(missing_ok=True)
