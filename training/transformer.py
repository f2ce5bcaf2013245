"""Trains the transformer of the small model: flow matching on the tokens of cards, as FLUX.2 was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import Flux2Transformer2DModel

from training.batches import Batch, Batches
from training.checkpoints import Run
from training.latents import CHANNELS, USED
from training.muon import Muon
from training.text import WIDTH as TEXT_WIDTH

STEPS: Final = 2900
SIZES_STEPS: Final = 3000
BUSY: Final = 3.0  #: weight of a token with something in it over a flat one
_SHIFT: Final = 6.0  #: of the noise levels, near what the pipeline's scheduler takes for 8 to 20 steps
_RATE: Final = 2.5e-3
_WARM_UP: Final = 50
_FIRST_PHASE: Final = 0.6  # share of the steps with ideal text only
_COOL_DOWN: Final = 0.25  # share of the steps in which the rate falls to zero
_SMOOTH: Final = 0.99
_GATE: Final = 0.5  # size of the blocks' gates at the start


def new(*, guidance: bool = False) -> Any:
    """The untrained transformer; unused channels have weight zero and stay so."""
    model = Flux2Transformer2DModel(
        num_layers=1,
        num_single_layers=4,
        num_attention_heads=4,
        attention_head_dim=32,
        axes_dims_rope=(4, 10, 10, 8),
        joint_attention_dim=3 * TEXT_WIDTH,
        timestep_guidance_channels=64,
        guidance_embeds=guidance,
    )
    with torch.no_grad():
        model.x_embedder.weight[:, USED:] = 0
        model.proj_out.weight.zero_()
        _open_gates(model)
    return model


def latest(folder: Path) -> Any:
    """The smoothed transformer of the last checkpoint, of the later stage if it has begun.

    Raises:
        FileNotFoundError: there is none yet.
    """
    later = folder / "sizes.pt"
    path = later if later.is_file() else folder / "transformer.pt"
    model = new()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["smooth"])
    return model.eval()


def _open_gates(model: Any) -> None:
    """Let blocks work from the first step; shifts and scales begin at zero."""
    levels = torch.linspace(0, 1000, 64)
    time = torch.nn.functional.silu(model.time_guidance_embed(levels, None))
    size = time.square().sum(-1).mean().sqrt()
    for part in (
        model.double_stream_modulation_img,
        model.double_stream_modulation_txt,
        model.single_stream_modulation,
    ):
        for number, rows in enumerate(part.linear.weight.chunk(3 * part.mod_param_sets)):
            rows.normal_(0, float(_GATE / size)) if number % 3 == 2 else rows.zero_()


class Trainer:
    """The transformer, its smoothed twin, and the two optimizers.

    Stage ``transformer`` learns cards of 128 pixels and edits; ``sizes`` goes on from its result with all sizes.
    """

    def __init__(self, folder: Path, stage: str, seed: int, steps: int, device: str, start: Any = None) -> None:
        self._run = Run(folder, stage, steps)
        self._mixture = {"transformer": _squares, "sizes": _all_sizes}[stage]
        self._seed = seed
        torch.manual_seed(seed)
        self.model = new().to(device)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        self.smooth = new().to(device).eval()
        self.smooth.load_state_dict(self.model.state_dict())
        inside = [
            weight
            for name, weight in self.model.named_parameters()
            if "transformer_blocks." in name and weight.ndim == 2
        ]
        known = {id(weight) for weight in inside}
        rest = [weight for weight in self.model.parameters() if id(weight) not in known]
        self._optimizers = (
            Muon(inside, lr=_RATE),
            torch.optim.AdamW(rest, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self._step = 0
        if found := self._run.resume():
            self.model.load_state_dict(found["model"])
            self.smooth.load_state_dict(found["smooth"])
            for optimizer, state in zip(self._optimizers, found["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self._step = found["step"]

    def train(self, batches: Batches, stop: int | None = None) -> Any:
        """Train to the end, or save and stop before it; gives the smoothed transformer."""
        recent = 0.0
        for step in range(self._step + 1, (stop or self._run.steps) + 1):
            self._step = step
            rng = np.random.default_rng((self._seed, 6, step))
            torch.manual_seed(int(rng.integers(2**62)))
            self._set_rate(step)
            losses = []
            for batch in self._mixture(batches, rng, step / self._run.steps):
                one = loss(self.model, batch)
                one.backward()  # type: ignore[no-untyped-call]
                losses.append(float(one.detach()))
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self._optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self._follow(step)
            recent = sum(losses) / len(losses) if step == 1 else 0.98 * recent + 0.02 * sum(losses) / len(losses)
            self._run.tell(step, recent)
            if step == stop or self._run.is_due(step):
                self._run.save(self._state())
        return self.smooth

    def _set_rate(self, step: int) -> None:
        left = (self._run.steps - step) / (self._run.steps * _COOL_DOWN)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min(1.0, step / _WARM_UP, left)

    def _follow(self, step: int) -> None:
        keep = min(_SMOOTH, step / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.smooth.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "model": self.model.state_dict(),
            "smooth": self.smooth.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }


def _squares(batches: Batches, rng: np.random.Generator, done: float) -> list[Batch]:
    """First parts of cards with ideal text, which is cheap; then also real text and edits."""
    if done < _FIRST_PHASE:
        return [*(batches.parts(rng, 24) for _ in range(2)), batches.whole(rng, 8, real=False)]
    edits = [batches.edits(rng, 4)] if rng.random() < 0.35 else []
    return [batches.parts(rng, 32), batches.whole(rng, 8, real=True), *edits]


def _all_sizes(batches: Batches, rng: np.random.Generator, _done: float) -> list[Batch]:
    """Mostly other sizes and edits, and enough of the rest to keep it."""
    known = batches.parts(rng, 12) if rng.random() < 0.5 else batches.whole(rng, 6, real=True)
    edits = [batches.edits(rng, 8)] if rng.random() < 0.5 else []
    return [known, *(batches.sized(rng, 1024) for _ in range(2)), *edits]


def loss(model: Any, batch: Batch) -> torch.Tensor:
    """The weighted error of the predicted velocity, noise minus picture, at random levels of noise."""
    clean = batch.latents
    even = torch.rand(len(clean), device=clean.device)
    level = _SHIFT * even / (1 + (_SHIFT - 1) * even)
    noise = torch.randn_like(clean)
    mixed = torch.lerp(clean, noise, level[:, None, None])
    places = batch.places
    if batch.references is not None and batch.reference_places is not None:
        mixed = torch.cat([mixed, batch.references], 1)
        places = torch.cat([places, batch.reference_places])
    found = model(
        hidden_states=torch.nn.functional.pad(mixed, (0, CHANNELS - USED)),
        timestep=level,
        guidance=None,
        encoder_hidden_states=batch.text,
        txt_ids=batch.text_places,
        img_ids=places,
        return_dict=False,
    )[0][:, : clean.shape[1], :USED]
    error = (found - (noise - clean)).square().mean(-1)
    weighted: torch.Tensor = (error * batch.weights).sum() / batch.weights.sum()
    return weighted
