"""The local FLUX.2 pipeline: one drawing after another, each step reported, nothing left behind when one is stopped.

torch and diffusers are imported when a model is loaded, not before: a worker for remote providers never pays for them.
"""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import structlog
from PIL import Image

from fluxfarm.acceleration import Acceleration, skipped_steps
from fluxfarm.errors import (
    DeviceLost,
    FluxfarmError,
    InvalidField,
    InvalidPrompt,
    InvalidReference,
    InvalidSize,
    OutOfMemory,
    RenderFailed,
)
from fluxfarm.sizes import MULTIPLE
from workers import pipeline_loading
from workers.pipeline_batch import Call, Frame, Member, OnStep, frames
from workers.pipeline_embeddings import Embeddings
from workers.pipeline_failures import forget, translate
from workers.pipeline_kernels import Kernels
from workers.pipeline_loras import LoraFile, Loras
from workers.pipeline_previews import OnPreview
from workers.pipeline_prompts import PromptEncoder
from workers.pipeline_steps import left_out
from workers.pipeline_upsampling import can_upsample, upsample

if TYPE_CHECKING:
    import torch

MAX_REFERENCES: Final = 10  #: what Black Forest Labs trained for; the pipelines have no limit of their own
MIN_REFERENCE_SIDE: Final = 64  #: pixels; diffusers' Flux2ImageProcessor refuses less
MAX_REFERENCE_RATIO: Final = 8  #: long side over short side; likewise
OWN_EMBEDDINGS: Final = 128 << 20  #: bytes of prompt embeddings of a pipeline that shares none
MAX_SEED: Final = 2**63 - 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one call needs: ``seeds`` holds one seed (0 to 2**63 - 1) for each image to draw.

    ``previews`` are wanted of each image while it is drawn.

    ``width`` and ``height`` are pixels, multiples of 16 (the pipelines floor others with only a log line). ``guidance``
    is a vector for dev, true guidance above 1 for klein-base, and without effect on a distilled klein. References are
    RGB, upright (EXIF is not read here) and shared by all images; their order counts; over 1 MP the pipelines shrink
    them. Padding is attended to, so another ``max_sequence_length`` gives another picture.

    Raises:
        InvalidPrompt, InvalidSize, InvalidField, InvalidReference: the pipeline would crash, or draw something else.
    """

    prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    references: tuple[Image.Image, ...] = ()
    max_sequence_length: int = 512
    previews: int = 0
    acceleration: Acceleration = "none"
    loras: tuple[LoraFile, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InvalidPrompt("The prompt is empty.", param="prompt")
        if min(self.width, self.height) < MULTIPLE or self.width % MULTIPLE or self.height % MULTIPLE:
            size = f"{self.width}x{self.height}"
            raise InvalidSize(f"{size} cannot be drawn: each side must be a multiple of {MULTIPLE}.", param="size")
        if self.steps < 1:
            raise InvalidField(f"{self.steps} steps draw nothing; at least 1 is needed.", param="num_inference_steps")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise InvalidField(f"guidance is {self.guidance}; it must be 0 or more.", param="guidance")
        if not self.seeds or not all(0 <= seed <= MAX_SEED for seed in self.seeds):
            raise InvalidField(f"One seed from 0 to {MAX_SEED} is needed for each image.", param="seed")
        if self.max_sequence_length < 1:
            raise InvalidField("max_sequence_length must be at least 1.", param="max_sequence_length")
        self._check_references()

    def _check_references(self) -> None:
        if len(self.references) > MAX_REFERENCES:
            raise InvalidReference(f"There are {len(self.references)} references; {MAX_REFERENCES} is the most.")
        for number, image in enumerate(self.references):
            param = f"images[{number}]"
            if image.mode != "RGB":
                raise InvalidReference(f"The reference is {image.mode}; it must be RGB.", param=param)
            short, long = sorted(image.size)
            if short < MIN_REFERENCE_SIDE or long > MAX_REFERENCE_RATIO * short:
                raise InvalidReference(
                    f"The reference is {image.width}x{image.height}; each side must be at least {MIN_REFERENCE_SIDE} "
                    f"pixels and the long one at most {MAX_REFERENCE_RATIO} times the short one.",
                    param=param,
                )


class Pipeline:
    """One model in memory; safe to share between threads, which draw one after another.

    ``revision`` names the weights (a hub commit, or a hash of the folder), ``device`` and ``dtype`` are those in use,
    ``class_name`` is the diffusers class, ``tuned`` how its kernels are set, for the record,
    ``memory`` the bytes that it took of the device when it was loaded, ``reading`` those that encoding a prompt takes
    meanwhile, at most (0: the device counts none).
    """

    def __init__(self, loaded: pipeline_loading.Loaded, embeddings: Embeddings | None = None) -> None:
        """Without ``embeddings``, those of the last few prompts are kept."""
        self.revision = loaded.revision
        self.device = loaded.device
        self.dtype = loaded.dtype
        self.class_name = loaded.class_name
        self.tuned = loaded.tuned
        self._pipe: Any = loaded.pipe
        self.memory = loaded.memory
        self.reading = loaded.reading
        weights = f"{loaded.class_name} {loaded.revision} {loaded.dtype} {loaded.device} {sorted(loaded.tuned.items())}"
        self._prompts = PromptEncoder(loaded.pipe, loaded.class_name, weights, embeddings or Embeddings(OWN_EMBEDDINGS))
        self._loras = Loras(loaded.pipe)
        self._lock = threading.Lock()
        self._lost: str | None = None

    @classmethod
    def load(
        cls,
        folder_or_hub: Path | str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        allow_downloads: bool = False,
        embeddings: Embeddings | None = None,
        keep_words: bool = False,
        kernels: Kernels | None = None,
    ) -> Self:
        """Load a ``Flux2Pipeline`` or ``Flux2KleinPipeline`` from a folder, or from a hub id with a pinned revision.

        ``keep_words`` keeps the part of the text encoder that only ``upsample`` needs, where the model can do that.

        Raises:
            ModelUnavailable: the weights are missing or broken, or the device is not there; says what to do.
            OutOfMemory: the device has no room for the weights.
            DeviceLost: the device failed; end the process.
        """
        return cls(
            pipeline_loading.load(
                folder_or_hub,
                revision=revision,
                device=device,
                dtype=dtype,
                allow_downloads=allow_downloads,
                keep_words=keep_words,
                kernels=kernels or Kernels(),
            ),
            embeddings,
        )

    @property
    def guidance_kind(self) -> Literal["embedded", "cfg", "fixed"]:
        """What the guidance number does with these weights, in the catalogue's words."""
        if self.class_name == "Flux2Pipeline":
            return "embedded"
        return "fixed" if self._opened().config.is_distilled else "cfg"

    def count_tokens(self, prompt: str) -> int:
        """Tokens of the prompt in the model's chat template (with dev's system message); does not wait for a render."""
        self._opened()
        return self._prompts.count(prompt)

    def draw(self, drawing: Drawing, on_step: OnStep, on_preview: OnPreview | None = None) -> list[Image.Image]:
        """Draw one RGB image for each seed, one at a time: only batches of one repeat to the bit.

        ``on_step(done, total)`` comes after every step, total = images x steps. What it raises from the farm's error
        tree (Canceled, LeaseLost) ends the drawing at once and passes through as it is.

        Raises:
            PromptTooLong: the model would drop the end of the prompt.
            OutOfMemory: the device has no room; the pipeline stays usable.
            DeviceLost: the device failed; end the process.
            RenderFailed: anything else; the message never holds the prompt.
        """
        member = Member(drawing, on_step, on_preview)
        self.draw_together([member])
        if member.failure is not None:
            raise member.failure
        return member.images

    def draw_together(self, members: Sequence[Member], most: int = 1) -> None:
        """Draw several drawings of one shape, up to ``most`` pictures a call; how each of them ended is kept in it.

        A call of several that fails is made again picture by picture, once the device's memory is freed: a failure is
        that of whose picture fails alone. What else stands in ``failure`` is told at ``draw``.
        """
        with self._lock:
            pipe = self._opened()
            for member in members:
                member.failure = self._attempt(pipe, member.drawing.prompt, partial(self._encode, member))
            for together in frames(members, most):
                self._draw_frames(pipe, together)
            for member in members:
                member.embedding = None

    def encode_ahead(self, prompt: str, max_sequence_length: int) -> bool:
        """Encode a prompt of a later drawing, beside the one in progress; False: nothing was to be done.

        Raises:
            PromptTooLong: as ``draw``; nothing of these harms the drawing in progress.
            OutOfMemory, DeviceLost, RenderFailed: likewise.
        """
        if self._lost is not None:
            return False
        try:
            return self._prompts.encode_ahead(prompt, max_sequence_length)
        except Exception as error:  # noqa: BLE001 - translated, as what the library raises may hold the prompt
            forget(error)
            failure = error if isinstance(error, FluxfarmError) else translate(error, prompt)
        if isinstance(failure, OutOfMemory):
            self._clean_up()
        elif isinstance(failure, DeviceLost):
            self._lost = failure.message
        raise failure

    def upsample(self, prompt: str, seed: int, references: tuple[Image.Image, ...], limit: int) -> str | None:
        """A longer prompt of at most ``limit`` tokens by the text encoder itself; None: this one cannot.

        Raises:
            RenderError: as ``draw``.
        """
        with self._lock:
            pipe = self._opened()
            if not can_upsample(pipe):
                return None
            try:
                with self._prompts.alone():
                    text = upsample(pipe, prompt, seed, references)
            except Exception as error:  # noqa: BLE001 - translated, as what the library raises may hold the prompt
                forget(error)
                failure = translate(error, prompt)
            else:
                return text if self.count_tokens(text) <= limit else None
        raise failure

    def close(self) -> None:
        """Free the device's memory, after the drawing in progress; another call does nothing."""
        with self._lock:
            self._pipe = None
            self._prompts.close()
            self._loras = Loras(None)
            gc.collect()
            self._empty_cache()

    def _opened(self) -> Any:
        pipe = self._pipe
        if self._lost is not None:
            raise DeviceLost(self._lost)
        if pipe is None:
            raise RenderFailed("The model was unloaded before the drawing began.")
        return pipe

    def _encode(self, member: Member) -> None:
        drawing = member.drawing
        started = perf_counter()
        try:
            found = self._prompts.encode(drawing.prompt, drawing.max_sequence_length)
            member.embedding, member.origin = found.values, found.origin
        finally:
            member.encoding += perf_counter() - started

    def _draw_frames(self, pipe: Any, together: list[Frame]) -> None:
        together = [frame for frame in together if frame.member.failure is None]
        if not together:
            return
        call = Call(pipe, together)
        failure = self._attempt(pipe, together[0].member.drawing.prompt, partial(self._call, pipe, call, together))
        if failure is None or all(frame.member.failure is not None for frame in together):
            return
        if len(together) == 1 or isinstance(failure, DeviceLost):
            for frame in together:
                frame.member.failure = frame.member.failure or failure
            return
        log.warning("batch_drawn_alone", size=len(together), code=failure.code)
        call.start_over()
        for frame in together:
            self._draw_frames(pipe, [frame])

    def _attempt(self, pipe: Any, prompt: str, do: Callable[[], None]) -> FluxfarmError | None:
        """Do it; what went wrong comes back as one of the tree's, with nothing of it left on the device."""
        lost = self._lost
        if lost is not None:
            return DeviceLost(lost)
        failure: FluxfarmError
        try:
            do()
        except BaseException as error:
            forget(error)
            self._clean_up(pipe)
            if not isinstance(error, Exception):
                raise
            failure = error if isinstance(error, FluxfarmError) else translate(error, prompt)
        else:
            return None
        if isinstance(failure, DeviceLost):
            self._lost = failure.message
        elif self._lost is not None:  # found out while cleaning up: a device reports its errors late
            failure = DeviceLost(self._lost)
        return failure

    def _call(self, pipe: Any, call: Call, together: list[Frame]) -> None:
        """One call; names only, as the pipelines' first positional argument is ``image``."""
        drawing = together[0].member.drawing
        more: dict[str, Any] = {}
        with call.watched():
            self._loras.want(drawing.loras)
            if self._passes(drawing) > 1:
                negative = self._prompts.encode("", drawing.max_sequence_length).values
                more["negative_prompt_embeds"] = _stacked([negative] * len(together))
            with self._accelerated(pipe, drawing):
                made = pipe(
                    prompt_embeds=_stacked([frame.member.embedding for frame in together]),
                    image=list(drawing.references) or None,
                    width=drawing.width,
                    height=drawing.height,
                    num_inference_steps=drawing.steps,
                    guidance_scale=drawing.guidance,
                    generator=[_generator(frame.seed) for frame in together],
                    callback_on_step_end=call.after_step,
                    callback_on_step_end_tensor_inputs=[],
                    **more,
                )
        call.keep(made.images)

    def _passes(self, drawing: Drawing) -> int:
        """Of the transformer in one step."""
        return 2 if self.guidance_kind == "cfg" and drawing.guidance > 1 else 1

    def _accelerated(self, pipe: Any, drawing: Drawing) -> AbstractContextManager[None]:
        """Around one call of the pipeline."""
        skipped = skipped_steps(drawing.steps, drawing.acceleration)
        return left_out(pipe.transformer, skipped, passes=self._passes(drawing))

    def _clean_up(self, pipe: Any = None) -> None:
        """Reset what a stopped call skipped: the state of a step cache would leak into the next job's picture."""
        try:
            if pipe is not None:  # a call was stopped
                pipe.maybe_free_model_hooks()
            self._empty_cache()
        except Exception as error:  # noqa: BLE001  # only a dead device makes this fail
            forget(error)
            self._lost = f"The device failed and this worker must start again ({type(error).__name__})."

    def _empty_cache(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self.device == "mps":
            torch.mps.empty_cache()


def _stacked(embeddings: Sequence[Any]) -> Any:
    """One row a picture."""
    import torch

    return embeddings[0] if len(embeddings) == 1 else torch.cat(list(embeddings))


def _generator(seed: int) -> torch.Generator:
    """A fresh one for each image, as a used one goes on in its stream; of the CPU, so that any device draws alike."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)
