"""LoRA files of the farm on a pipeline: loaded when a drawing wants them, away before the next one that does not.

They are never fused into the weights: taking a fused one out again leaves a rest behind, and the next job's pictures
would not be those of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from fluxfarm.errors import DeviceLost, FluxfarmError, LoraUnusable, OutOfMemory
from workers.pipeline_failures import forget, one_line, translate

_PREFIX: Final = "lora"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One to add, ``scale`` times; ``name`` is what the caller calls it."""

    name: str
    path: Path
    scale: float


class Loras:
    """Those that are on one pipeline now; the last ones stay for a next drawing that wants the same."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._loaded: tuple[tuple[Path, int, int], ...] | None = ()  #: None: something broke, and nobody knows

    def want(self, wanted: tuple[LoraFile, ...]) -> None:
        """Have exactly these on the pipeline; none leaves the model as it came, to the bit.

        Raises:
            LoraUnusable: a file is gone or broken, or nothing of it fits the model; then none is on it.
            OutOfMemory, DeviceLost: of the device.
        """
        files = tuple(_identity(lora) for lora in wanted)
        if files != self._loaded:
            self.clear()
            self._load(wanted, files)
        if wanted:
            names = [f"{_PREFIX}{index}" for index in range(len(wanted))]
            self._pipe.set_adapters(names, [lora.scale for lora in wanted])

    def clear(self) -> None:
        """Take all off."""
        self._loaded = None
        if self._pipe.get_list_adapters():  # a file of the wrong width leaves an empty list, and its layers
            self._pipe.unload_lora_weights()
        self._loaded = ()

    def _load(self, wanted: tuple[LoraFile, ...], files: tuple[tuple[Path, int, int], ...]) -> None:
        failure: FluxfarmError | None = None
        self._loaded = None
        for index, lora in enumerate(wanted):
            try:
                self._load_one(lora, f"{_PREFIX}{index}")
            except LoraUnusable as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - safetensors, peft and diffusers raise what they like
                forget(error)
                meaning = translate(error)
                words = one_line(str(error).replace(f"{lora.path.parent}/", ""))
                failure = (
                    meaning
                    if isinstance(meaning, OutOfMemory | DeviceLost)
                    else LoraUnusable(f"The LoRA {lora.name} cannot be put on this model ({words}).")
                )
            if failure is not None:
                self.clear()
                raise failure
        self._loaded = files

    def _load_one(self, lora: LoraFile, adapter: str) -> None:
        self._pipe.load_lora_weights(
            str(lora.path.parent),
            weight_name=lora.path.name,
            adapter_name=adapter,
            use_safetensors=True,
            local_files_only=True,
        )
        if adapter not in _adapters(self._pipe):  # the library says nothing when no name in the file fits
            raise LoraUnusable(f"Nothing in the LoRA {lora.name} fits this model.")
        log.info("lora_loaded", lora=lora.name)


def _adapters(pipe: Any) -> list[str]:
    found = pipe.get_list_adapters()
    return list(found.get("transformer", ()))


def _identity(lora: LoraFile) -> tuple[Path, int, int]:
    try:
        stat = lora.path.stat()
    except OSError:
        raise LoraUnusable(f"This worker has no LoRA {lora.name} in its folder.") from None
    return lora.path, stat.st_mtime_ns, stat.st_size
