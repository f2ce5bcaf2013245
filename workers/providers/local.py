"""The local provider: the FLUX.2 pipelines of this process, around one lock for the device."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from typing import Final

import structlog
from PIL import Image as Pillow
from PIL.Image import Image

from fluxfarm.catalog import find_model
from fluxfarm.errors import FluxfarmError, LoraNotFound, LoraUnusable, ModelUnavailable, OutOfMemory
from fluxfarm.loras import Lora, find_lora
from fluxfarm.pricing import SMALLEST
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.queue import local_queue
from workers import meter, metrics
from workers.foresight import Foresight, Upcoming
from workers.leases import Held
from workers.pipeline import Drawing, Pipeline
from workers.pipeline_batch import Member
from workers.pipeline_embeddings import Embeddings
from workers.pipeline_kernels import Kernels
from workers.pipeline_loras import LoraFile
from workers.pipeline_previews import OnPreview
from workers.pipeline_small import ensure_small
from workers.providers.drawn import Drawn, Keep
from workers.residents import Residents
from workers.turns import Take, Turns
from workers.watchdog import Watchdog

WARM_STEPS: Final = 2  #: of a drawing that is only made to be ready
DEVICE_LOST: Final = 70  #: exit status after a device fault; the supervisor starts a fresh process

#: a job, its references as PNG files, and where its previews go
Asked = tuple[Held, tuple[bytes, ...], OnPreview | None]

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
        self.residents = Residents(settings, self._load)
        self._embeddings = Embeddings(settings.prompt_cache << 20)
        self._turns = Turns()
        self._watchdog = Watchdog(settings.step_timeout)
        self._foresight = Foresight(settings, self.residents, self._watchdog, self._turns)

    @property
    def models(self) -> tuple[str, ...]:
        """Slugs that this worker can render."""
        return tuple(self._sources)

    def model_of(self, queue: str) -> str | None:
        """The model that jobs of the queue want; None: none of this worker's."""
        return next((slug for slug in self._sources if local_queue(slug) == queue), None)

    @property
    def device(self) -> str:
        """Where the last loaded pipeline is, or where the next one will be."""
        return (
            next(reversed(self.residents.pipelines.values())).device
            if self.residents.pipelines
            else self._settings.device
        )

    def turn(self) -> AbstractContextManager[Take]:
        """Whoever is next in line may claim a job, take the device and draw."""
        return self._turns.next()

    def look_ahead(self, queue: str, upcoming: Upcoming) -> None:
        """While another slot draws: encode the prompts of jobs that are likely next, if that is wanted."""
        slug = self.model_of(queue)
        if slug is not None:
            self._foresight.look(slug, upcoming)

    def warm_up(self) -> None:
        """Load as many models as may stay resident; until they are warm no job is claimed."""
        with self._turns.next() as take:
            take()
            for slug in list(self._sources)[: self._settings.resident_models]:
                try:
                    self._warm(slug)
                except FluxfarmError as error:
                    log.warning("model_not_warm", model=slug, reason=error.message)

    def _warm(self, slug: str) -> None:
        """Load it, and draw each of the configured sizes, alone and in a batch, so that no job pays for the first time.

        Raises:
            RenderError: as ``draw``.
        """
        pipeline = self.residents.take(slug)
        profile = find_model(slug)
        for size in self._settings.warm_sizes:
            if not profile.sizes.allows(size):
                continue
            for pictures in sorted({1, self._settings.batch_size or profile.batch(size.rendered)}):
                drawing = Drawing(
                    prompt="warm-up",
                    width=size.rendered.width,
                    height=size.rendered.height,
                    steps=WARM_STEPS,
                    guidance=profile.guidance.default,
                    seeds=tuple(range(pictures)),
                    max_sequence_length=profile.max_sequence_length,
                )
                member = Member(drawing, self._watchdog.heard(_nothing))
                with self._watchdog.watching():
                    pipeline.draw_together([member], pictures)
                if member.failure is not None:
                    raise member.failure

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
        (drawn,) = self.draw_together([(held, references, on_preview)])
        if isinstance(drawn, FluxfarmError):
            raise drawn
        return drawn

    def most(self, request: RenderRequest) -> int:
        """What pays for the model and the size, and no more than the settings allow; pictures of edits are alone."""
        if request.references:
            return 1
        pays = request.profile.batch(request.size.rendered)
        return self._settings.batch_size or pays

    def draw_together(self, asked: Sequence[Asked]) -> list[Drawn | FluxfarmError]:
        """Draw jobs of one shape, as many pictures a call as ``most`` says; what failed has its error in its place.

        Raises:
            ModelUnavailable, OutOfMemory: the weights are missing or broken, or there is no room for them.
            LoraUnusable: this worker's folder has not what the API's folder had.
        """
        started = time.perf_counter()
        request = asked[0][0].claim.request
        loras = _lora_files(self._settings.loras, request.loras)
        on_step, heard = self._turns.once_all_are_drawn([held for held, _, _ in asked]), self._watchdog.heard
        members = [Member(_drawing(held, png, loras), heard(on_step(held)), show) for held, png, show in asked]
        with self._watchdog.watching():
            pipeline = self.residents.take(request.model)
            loaded = time.perf_counter() - started
            self._watchdog.alive()
            with meter.watching(pipeline.device) as looks:
                pipeline.draw_together(members, self.most(request))
                self._draw_starved(pipeline, request.model, members)
        metrics.TOGETHER.observe(len(members))
        device: dict[str, str | float] = {**pipeline.tuned, **looks.told()}
        return [member.failure or self._drawn(member, pipeline, loaded, device) for member in members]

    def _draw_starved(self, pipeline: Pipeline, slug: str, members: Sequence[Member]) -> None:
        """Once more, each alone, those for which there was no room while other models stood around."""
        starved = [member for member in members if isinstance(member.failure, OutOfMemory)]
        if starved:
            self._foresight.rest(OutOfMemory.code)
        if not starved or not self.residents.keep_only(slug):
            return
        for member in starved:
            member.start_over()
            pipeline.draw_together([member])

    def _drawn(self, member: Member, pipeline: Pipeline, loaded: float, device: Mapping[str, str | float]) -> Drawn:
        price = self._settings.gpu_second_price
        spent = Decimal(str(round(member.encoding + member.seconds, 4)))
        return Drawn(
            images=list(member.images),
            revision=pipeline.revision,
            timings={"load": loaded, "encode_prompt": member.encoding, "render": member.seconds},
            cost=(price * spent).quantize(SMALLEST) if price else Decimal(0),
            device={**device, "prompt": member.origin},
            batch={"position": member.position, "size": member.size} if member.size > 1 else None,
        )

    def wind_up(self, held: Held) -> None:
        """Nothing runs elsewhere."""

    def upsample(self, request: RenderRequest, references: tuple[bytes, ...]) -> str | None:
        """A longer prompt by the model's own text encoder; None: it cannot.

        Raises:
            ModelUnavailable, RenderError: as ``draw``.
        """
        pipeline = self.residents.take(request.model)
        pictures = tuple(_opened(png) for png in references)
        return pipeline.upsample(request.prompt, request.seeds[0], pictures, request.profile.max_sequence_length)

    def _load(self, slug: str) -> Pipeline:
        source = self._sources.get(slug)
        if source is None:
            raise ModelUnavailable(f"This worker does not serve {slug}; FLUXFARM_MODELS names what it renders.")
        pipeline = Pipeline.load(
            self._place(source),
            revision=source.revision,
            device=self._settings.device,
            dtype=self._settings.dtype,
            allow_downloads=self._settings.allow_downloads,
            kernels=Kernels.from_settings(self._settings),
            embeddings=self._embeddings,
            keep_words=self._settings.own_upsampling and not self._settings.upsampling_url,
        )
        meter.show(pipeline.device)
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
        self.residents.close()


def _nothing(_done: int, _total: int) -> None:
    pass


def _drawing(held: Held, references: tuple[bytes, ...], loras: tuple[LoraFile, ...]) -> Drawing:
    request = held.claim.request
    size = request.size.rendered
    return Drawing(
        prompt=request.prompt,
        width=size.width,
        height=size.height,
        steps=request.steps,
        guidance=request.guidance,
        seeds=request.seeds,
        references=tuple(_opened(png) for png in references),
        max_sequence_length=request.profile.max_sequence_length,
        previews=request.previews,
        acceleration=request.acceleration,
        loras=loras,
    )


def _lora_files(folder: Path | None, wanted: tuple[Lora, ...]) -> tuple[LoraFile, ...]:
    try:
        return tuple(LoraFile(lora.name, find_lora(folder, lora.name), lora.scale) for lora in wanted)
    except LoraNotFound as error:
        raise LoraUnusable(f"On this worker: {error.message}") from None


def _opened(png: bytes) -> Image:
    with Pillow.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return picture.convert("RGB")
