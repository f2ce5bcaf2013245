"""The LoRA files of the farm: ``.safetensors`` in one folder, named by their callers without path or ending."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from fluxfarm.errors import InvalidField, LoraNotFound

ENDING: Final = ".safetensors"
MAX_LORAS: Final = 3  #: of one job, as fal takes
MAX_SCALE: Final = 4.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Lora(BaseModel):
    """One that a job wants; its weights are added ``scale`` times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scale: Annotated[float, Field(ge=0, le=MAX_SCALE)] = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the folder."""

    name: str
    size_bytes: int
    modified_at: datetime


def read_name(text: str) -> str:
    """The name that a caller means, with or without the ending.

    Raises:
        InvalidField: no name of a file in the folder can look like this; a URL, a hub id or a path for one.
    """
    name = text.removesuffix(ENDING)
    if not _NAME.fullmatch(name):
        raise InvalidField(
            "A LoRA is the name of a file in this farm's folder, with no path and no URL; GET /v1/loras lists them."
        )
    return name


def find_lora(folder: Path | None, name: str) -> Path:
    """The file of that name.

    Raises:
        LoraNotFound: there is none, or this farm has no folder for them.
    """
    if folder is None:
        raise LoraNotFound("This farm has no folder of LoRAs; FLUXFARM_LORAS names one.")
    path = folder / f"{name}{ENDING}"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise LoraNotFound(f"There is no LoRA {name[:100]!r}; GET /v1/loras lists them.")
    return path


def kept(folder: Path | None) -> Iterator[Kept]:
    """Those of the folder, by name; files that no caller could name are passed over."""
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.glob(f"*{ENDING}")):
        if _NAME.fullmatch(path.name.removesuffix(ENDING)) and path.is_file():
            stat = path.stat()
            yield Kept(path.name.removesuffix(ENDING), stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))
