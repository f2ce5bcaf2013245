"""What a slot does while another one draws: it encodes the prompts that are likely next, so that nobody waits for them.

A hint and no more. Nothing is claimed, the turn still says who is drawn, and an embedding that nobody asks for leaves
the cache in its time. It is done beside the drawing, only where its memory is free on top of the reserve; after any
failure it rests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from fluxfarm.errors import FluxfarmError, PromptTooLong
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from workers.pipeline import Pipeline
from workers.residents import Residents
from workers.watchdog import Watchdog

REST: Final = 60.0  #: seconds without it after a failure
SMALLEST_CACHE: Final = 64  #: MiB; in less, what is encoded ahead would push out what was

Upcoming = Callable[[], Sequence[RenderRequest]]  #: who is likely next

log = structlog.get_logger()


class Device(Protocol):
    """What is drawn on."""

    def locked(self) -> bool:
        """Whether somebody draws or loads."""


class Foresight:
    """One for a worker process; no two slots look ahead at once."""

    def __init__(self, settings: Settings, residents: Residents, watchdog: Watchdog, device: Device) -> None:
        """``device`` says whether another slot draws on it."""
        self._settings = settings
        self._residents = residents
        self._watchdog = watchdog
        self._device = device
        self._one = threading.Lock()
        self._rests_until = 0.0

    def look(self, slug: str, upcoming: Upcoming) -> None:
        """Encode prompts for as long as another slot draws; whatever goes wrong, the caller takes its turn as ever."""
        if not self._may(slug) or not self._one.acquire(blocking=False):
            return
        try:
            requests = upcoming()
            with self._watchdog.watching():
                self._encode(slug, requests)
        except Exception as error:  # noqa: BLE001 - a hint is never worth a ticket
            self.rest(error.code if isinstance(error, FluxfarmError) else type(error).__name__)
        finally:
            self._one.release()

    def rest(self, reason: str) -> None:
        """Encode nothing ahead for a while."""
        self._rests_until = time.monotonic() + REST
        log.warning("encode_ahead_rests", reason=reason, seconds=REST)

    def _encode(self, slug: str, requests: Sequence[RenderRequest]) -> None:
        for request in requests:
            pipeline = self._may(slug)
            if pipeline is None:
                return
            if request.prompt_upsampling:  # it will be another one
                continue
            try:
                pipeline.encode_ahead(request.prompt, request.profile.max_sequence_length)
            except PromptTooLong:
                continue  # its own attempt says so
            self._watchdog.alive()

    def _may(self, slug: str) -> Pipeline | None:
        """The model, if a prompt may be encoded with it now."""
        pipeline = self._residents.pipelines.get(slug)
        if pipeline is None or not self._is_wanted(pipeline) or not self._device.locked():
            return None
        if self._residents.loading is not None or time.monotonic() < self._rests_until:
            return None
        return pipeline if self._residents.has_room(pipeline.reading) else None

    def _is_wanted(self, pipeline: Pipeline) -> bool:
        wish = self._settings.encode_ahead
        on = pipeline.device.startswith("cuda") if wish == "auto" else wish == "on"
        return on and self._settings.prompt_cache >= SMALLEST_CACHE
