"""The local provider: the FLUX.2 pipelines of this process, around one lock for the device."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Final

import structlog
from PIL import Image as Pillow
from PIL.Image import Image

from fluxfarm.catalog import find_model
from fluxfarm.errors import FluxfarmError, ModelUnavailable
from fluxfarm.pricing import SMALLEST
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.queue import local_queue
from workers.leases import Held
from workers.pipeline import Drawing, Pipeline
from workers.pipeline_previews import OnPreview
from workers.pipeline_small import ensure_small
from workers.providers.drawn import Drawn, Keep
from workers.watchdog import Watchdog

DEVICE_LOST: Final = 70  #: exit status after a device fault; the supervisor starts a fresh process

log = structlog.get_logger()


class LocalProvider:
    """Loads the models of the worker's queues and draws with them, one at a time."""

    name: Final = "local"

    def __init__(self, settings: Settings, queues: tuple[str, ...]) -> None:
        """Only the models whose queues this worker takes from are ever loaded."""
        self._settings = settings
        self._sources = {
            find_model(source.slug).slug: source
            for source in settings.models
            if local_queue(find_model(source.slug).slug) in queues
        }
        self._pipelines: OrderedDict[str, Pipeline] = OrderedDict()
        self._turn = threading.Lock()
        self._watchdog = Watchdog(settings.step_timeout)

    @property
    def models(self) -> tuple[str, ...]:
        """Slugs that this worker can render."""
        return tuple(self._sources)

    @property
    def device(self) -> str:
        """Where the last loaded pipeline is, or where the next one will be."""
        return next(reversed(self._pipelines.values())).device if self._pipelines else self._settings.device

    def turn(self) -> threading.Lock:
        """The lock of the device: who holds it may claim a job and draw."""
        return self._turn

    def warm_up(self) -> None:
        """Load as many models as may stay resident, so that the first job does not wait for it."""
        for slug in list(self._sources)[: self._settings.resident_models]:
            try:
                with self._turn:
                    self._load(slug)
            except FluxfarmError as error:
                log.warning("model_unavailable", model=slug, reason=error.message)

    def draw(
        self,
        held: Held,
        references: tuple[bytes, ...],
        keep: Keep,  # noqa: ARG002 - see Renderer
        on_preview: OnPreview | None = None,
    ) -> Drawn:
        """Draw every image of the request at the next multiple of 16.

        Raises:
            ModelUnavailable: the weights are missing or broken.
            RenderError: what the pipeline raises; ``Canceled`` and ``LeaseLost`` come from ``on_step``.
        """
        started = time.perf_counter()
        request = held.claim.request
        size = request.size.rendered
        drawing = Drawing(
            prompt=request.prompt,
            width=size.width,
            height=size.height,
            steps=request.steps,
            guidance=request.guidance,
            seeds=request.seeds,
            references=tuple(_opened(png) for png in references),
            max_sequence_length=request.profile.max_sequence_length,
            previews=request.previews,
        )
        with self._watchdog.watching(held.on_step) as watched:
            pipeline = self._load(request.model)
            loaded = time.perf_counter()
            self._watchdog.alive()
            images = pipeline.draw(drawing, watched, on_preview)
        seconds = time.perf_counter() - loaded
        price = self._settings.gpu_second_price
        return Drawn(
            images=list(images),
            revision=pipeline.revision,
            timings={"load": loaded - started, "render": seconds},
            cost=(price * Decimal(str(round(seconds, 4)))).quantize(SMALLEST) if price else Decimal(0),
        )

    def wind_up(self, held: Held) -> None:
        """Nothing runs elsewhere."""

    def upsample(self, request: RenderRequest, references: tuple[bytes, ...]) -> str | None:
        """A longer prompt by the model's own text encoder; None: it cannot.

        Raises:
            ModelUnavailable, RenderError: as ``draw``.
        """
        pipeline = self._load(request.model)
        pictures = tuple(_opened(png) for png in references)
        return pipeline.upsample(request.prompt, request.seeds[0], pictures, request.profile.max_sequence_length)

    def _load(self, slug: str) -> Pipeline:
        """The resident pipeline of the model; the least used one leaves when there is no room."""
        pipeline = self._pipelines.get(slug)
        if pipeline is not None:
            self._pipelines.move_to_end(slug)
            return pipeline
        source = self._sources.get(slug)
        if source is None:
            raise ModelUnavailable(f"This worker does not serve {slug}; FLUXFARM_MODELS names what it renders.")
        while len(self._pipelines) >= self._settings.resident_models:
            _, oldest = self._pipelines.popitem(last=False)
            oldest.close()
        pipeline = Pipeline.load(
            self._place(source),
            revision=source.revision,
            device=self._settings.device,
            dtype=self._settings.dtype,
            allow_downloads=self._settings.allow_downloads,
        )
        self._pipelines[slug] = pipeline
        log.info("model_loaded", model=slug, revision=pipeline.revision, device=pipeline.device, dtype=pipeline.dtype)
        return pipeline

    def _place(self, source: ModelSource) -> Path | str:
        if source.folder is not None:
            return source.folder
        return source.hub_id or ensure_small(find_model(source.slug).slug, self._settings.data_dir / "models")

    def give_up_device(self) -> None:
        """End the process: after a device fault no render in it can be trusted."""
        log.error("device_lost")
        os._exit(DEVICE_LOST)

    def close(self) -> None:
        """Free the device's memory."""
        while self._pipelines:
            self._pipelines.popitem()[1].close()


def _opened(png: bytes) -> Image:
    with Pillow.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return picture.convert("RGB")
