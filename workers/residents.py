"""The models of a worker that stay on its device: loaded when a job needs one, and the least used one makes room.

What a model takes is measured when it is loaded, in seconds and bytes, and remembered in a file of the data folder; so
the next load is announced with the moment at which it should be done, and room is made before it, not after it failed.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from fluxfarm.errors import OutOfMemory
from fluxfarm.settings import Settings
from workers import metrics, readings
from workers.pipeline import Pipeline

FILE: Final = "loads.json"
MIB: Final = 1 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Load:
    """What loading a model took."""

    seconds: float
    bytes: int  #: of its weights on the device


class Loads:
    """The last load of each model on each device, kept in a file; without it nothing is foretold."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the data folder; it need not exist."""
        self._file = folder / FILE

    def last(self, slug: str, device: str) -> Load | None:
        """What it took; None: it was never loaded here, or the file cannot be read."""
        try:
            found = self._all()[f"{slug} {device}"]
            return Load(float(found["seconds"]), int(found["bytes"]))
        except (KeyError, TypeError, ValueError):
            return None

    def note(self, slug: str, device: str, load: Load) -> None:
        """Remember it; two processes that note at once lose one of their figures, which is measured again."""
        found = self._all() | {f"{slug} {device}": asdict(load)}
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
            fresh.replace(self._file)

    def _all(self) -> dict[str, dict[str, float]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Loading:
    """A load in progress."""

    slug: str
    ready_at: datetime | None  #: by the last load of this model here; None: there was none


class Residents:
    """One for a worker process; whoever calls ``take`` holds the lock of the device."""

    def __init__(self, settings: Settings, load: Callable[[str], Pipeline]) -> None:
        """``load`` puts a model on the device."""
        self.pipelines: OrderedDict[str, Pipeline] = OrderedDict()
        self.loading: Loading | None = None
        self.changed: Callable[[], None] = lambda: None  #: told when a load begins and ends, and when a model goes
        self._settings = settings
        self._load = load
        self._loads = Loads(settings.data_dir)
        self._device = settings.device

    def take(self, slug: str) -> Pipeline:
        """The model, loaded if it is not.

        Raises:
            ModelUnavailable: its weights are missing or broken.
            OutOfMemory: the device has no room for it, even alone.
        """
        pipeline = self.pipelines.get(slug)
        if pipeline is None:
            try:
                return self._bring(slug)
            finally:
                self.changed()
        self.pipelines.move_to_end(slug)
        return pipeline

    def keep_only(self, slug: str) -> bool:
        """Make all the room that there is for this one; False: it was alone."""
        others = [other for other in self.pipelines if other != slug]
        for other in others:
            self._drop(other, "out_of_memory")
        return bool(others)

    def close(self) -> None:
        """Free the device's memory."""
        while self.pipelines:
            self.pipelines.popitem()[1].close()

    def seconds(self, slug: str) -> float | None:
        """How long loading it took the last time."""
        last = self._loads.last(slug, self._device)
        return None if last is None else last.seconds

    def _bring(self, slug: str) -> Pipeline:
        last = self._loads.last(slug, self._device)
        self._make_room(0 if last is None else last.bytes)
        self.loading = Loading(slug, None if last is None else datetime.now(UTC) + timedelta(seconds=last.seconds))
        self.changed()
        started = time.perf_counter()
        try:
            pipeline = self._load_with_room(slug)
        finally:
            self.loading = None
        load = Load(time.perf_counter() - started, pipeline.memory)
        self.pipelines[slug] = pipeline
        while len(self.pipelines) > 1 and self._free() < 0:  # nobody knew before how large it is
            self._drop(next(iter(self.pipelines)), "another_model")
        self._device = pipeline.device
        for device in {self._settings.device, pipeline.device}:
            self._loads.note(slug, device, load)
        metrics.LOADS.labels(slug).observe(load.seconds)
        log.info(
            "model_loaded",
            model=slug,
            revision=pipeline.revision,
            device=pipeline.device,
            dtype=pipeline.dtype,
            seconds=round(load.seconds, 2),
            bytes=load.bytes,
        )
        return pipeline

    def _load_with_room(self, slug: str) -> Pipeline:
        while True:
            try:
                return self._load(slug)
            except OutOfMemory:
                if not self.pipelines:
                    raise
            self._drop(next(iter(self.pipelines)), "out_of_memory")

    def _make_room(self, needed: int) -> None:
        while self.pipelines and (len(self.pipelines) >= self._settings.resident_models or self._free() < needed):
            self._drop(next(iter(self.pipelines)), "another_model")

    def has_room(self, needed: int) -> bool:
        """Whether so many bytes are free beside the reserve at this moment; needs no lock."""
        return self._free() >= needed

    def _free(self) -> float:
        """Bytes that models may take beside those that are there."""
        taken = sum(pipeline.memory for pipeline in list(self.pipelines.values()))
        free = float("inf")
        if self._settings.model_memory:
            free = self._settings.model_memory * MIB - taken
        reading = readings.read(self._device)
        if reading.memory_total is not None:
            unused = reading.memory_total - reading.memory_used + readings.unused(self._device)
            free = min(free, unused - self._settings.memory_reserve * MIB)
        return free

    def _drop(self, slug: str, reason: str) -> None:
        log.info("model_unloaded", model=slug, reason=reason)
        self.pipelines.pop(slug).close()
        self.changed()
