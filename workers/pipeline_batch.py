"""Several drawings of one shape in one call of the pipeline, each with its own seeds, progress, previews and end.

FLUX.2 treats the pictures of a call apart: what one of them gives does not depend on the others but for rounding (at
most 1/255 in float32). A drawing that is stopped leaves the others going: its rows are still computed, and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog

from fluxfarm.errors import Canceled, FluxfarmError
from workers.pipeline_embeddings import Origin
from workers.pipeline_previews import OnPreview, Previewer, preview_steps

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from workers.pipeline import Drawing

OnStep = Callable[[int, int], None]

log = structlog.get_logger()


@dataclass(slots=True)
class Member:
    """One drawing among those that are drawn together: what is wished, then what came of it."""

    drawing: Drawing
    on_step: OnStep
    on_preview: OnPreview | None = None
    images: list[Image] = field(default_factory=list)
    failure: FluxfarmError | None = None
    encoding: float = 0.0  #: seconds of the device for its prompt
    seconds: float = 0.0  #: of the device, by its share of the pictures of each call
    position: int = 0  #: of its first picture in the call that drew it
    size: int = 1  #: pictures of that call
    done: int = 0
    told: int = 0
    embedding: torch.Tensor | None = None
    origin: Origin = "encoded"  #: of the embedding
    preview_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.on_preview is not None and self.drawing.previews:
            self.preview_steps = preview_steps(self.drawing.steps, self.drawing.previews)

    def start_over(self) -> None:
        """As if nothing of it had been drawn yet; the progress that was told stays."""
        self.failure, self.images, self.done = None, [], 0

    def advance(self, pictures: int) -> None:
        """So many of its pictures made one step; what stops it is kept and stops nobody else."""
        self.done += pictures
        self.told = max(self.told, self.done)  # a call that is made again starts over, its progress does not
        try:
            self.on_step(self.told, len(self.drawing.seeds) * self.drawing.steps)
        except FluxfarmError as error:
            self.failure = error.with_traceback(None)  # whose frames would keep the latents alive


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a member."""

    member: Member
    n: int

    @property
    def seed(self) -> int:
        """What its noise comes from."""
        return self.member.drawing.seeds[self.n]


def frames(members: Sequence[Member], most: int) -> Iterator[list[Frame]]:
    """The pictures of all members in their order, at most so many a call."""
    waiting = [Frame(member, n) for member in members for n in range(len(member.drawing.seeds))]
    for start in range(0, len(waiting), most):
        yield waiting[start : start + most]


class Call:
    """What is watched while some frames are drawn together."""

    def __init__(self, pipe: Any, together: list[Frame]) -> None:
        """The frames are of one shape."""
        self._frames = together
        self._members = list({id(frame.member): frame.member for frame in together}.values())
        self._before = {id(member): member.done for member in self._members}
        self._step = 0
        drawing = together[0].member.drawing
        wanted = any(member.preview_steps for member in self._members)
        self._previewer = Previewer(pipe, width=drawing.width, height=drawing.height) if wanted else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around the call: the previews' look at the steps, and each member's share of the time."""
        started = perf_counter()
        try:
            if self._previewer is None:
                yield
            else:
                with self._previewer.watching():
                    yield
        finally:
            share = (perf_counter() - started) / len(self._frames)
            for frame in self._frames:
                frame.member.seconds += share

    def after_step(self, *_: object) -> dict[str, object]:
        """The pipeline's callback.

        Raises:
            Canceled: nobody waits for any of its pictures any more.
        """
        self._step += 1
        for member in self._members:
            if member.failure is None:
                member.advance(sum(frame.member is member for frame in self._frames))
        if all(member.failure is not None for member in self._members):
            raise Canceled("Each drawing of the call was stopped.")
        for row, frame in enumerate(self._frames):
            if frame.member.failure is None:
                self._preview(frame, row)
        return {}  # the pipelines crash on None

    def _preview(self, frame: Frame, row: int) -> None:
        member = frame.member
        if self._previewer is None or member.on_preview is None or self._step not in member.preview_steps:
            return
        try:
            index = member.preview_steps.index(self._step)
            member.on_preview(frame.n, index, self._step, self._previewer.look(self._step, row))
        except Exception as error:  # noqa: BLE001 - a preview is never worth a render
            log.warning("previews_stopped", error=type(error).__name__)
            member.preview_steps = ()

    def keep(self, images: Sequence[Image]) -> None:
        """The pictures are there."""
        for position, (frame, image) in enumerate(zip(self._frames, images, strict=True)):
            member = frame.member
            if member.failure is None:
                if not member.images:
                    member.position, member.size = position, len(self._frames)
                member.images.append(image)

    def start_over(self) -> None:
        """Nothing of it counts."""
        for member in self._members:
            member.done = self._before[id(member)]
