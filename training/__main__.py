"""``python -m training``: trains all parts of the small model, writes its folder and measures it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: on a shared CPU, threads that spin cost most

import torch

from training import evaluate, latents, pipeline, text, transformer, vae
from training.batches import Batches, Reader
from training.checkpoints import threads
from training.transformer import Trainer

SEED: Final = 20261125
STAGES: Final = ("text", "vae", "decoder", "transformer", "sizes", "save", "evaluate")
_STEPS: Final = {
    "text": text.STEPS,
    "vae": vae.STEPS,
    "decoder": vae.FINE_STEPS,
    "transformer": transformer.STEPS,
    "sizes": transformer.SIZES_STEPS,
}
_MEASURED: Final = 1600  # cards of which the latents' mean and variance are taken
_STOCK: Final = 9600  # cards encoded in advance


class Parts:
    """The trained parts of the model; each goes on from its checkpoint, or comes from it when it is finished."""

    def __init__(self, folder: Path, steps: dict[str, int], device: str) -> None:
        self._folder = folder
        self._steps = steps
        self._device = device
        self.tokenizer = text.new_tokenizer(SEED)

    def text(self) -> Any:
        """The text encoder."""
        return text.train(self._folder, self.tokenizer, SEED, self._steps["text"], self._device)

    def vae(self) -> Any:
        """The autoencoder, with the statistics of its latents."""
        model = vae.train(self._folder, SEED, self._steps["vae"], self._device)
        latents.measure(model, SEED, _MEASURED, self._device)
        return model

    def decoder(self) -> Any:
        """The autoencoder with a finer decoder."""
        model = self.vae()
        vae.refine(self._folder, model, SEED, self._steps["decoder"], self._device)
        return model

    def transformer(self) -> Any:
        """The transformer of 128 pixels, smoothed."""
        return self._trainer("transformer").train(self._batches())

    def sizes(self) -> Any:
        """The transformer of all sizes, smoothed."""
        batches = self._batches()
        return self._trainer("sizes", self._trainer("transformer").train(batches)).train(batches)

    def _trainer(self, stage: str, start: Any = None) -> Trainer:
        return Trainer(self._folder, stage, SEED, self._steps[stage], self._device, start)

    def _batches(self) -> Batches:
        autoencoder, encoder = self.vae(), self.text()
        reader = Reader(encoder, self.tokenizer, text.directions(SEED), self._device)
        kept = self._folder / "cards.pt"
        stock = latents.Stock.draw(autoencoder, SEED, _STOCK, transformer.BUSY, self._device, kept)
        return Batches(autoencoder, reader, stock, transformer.BUSY, self._device)

    def pipeline(self) -> Any:
        """All of them together, the transformer as of its last checkpoint."""
        return pipeline.assemble(
            self.decoder().cpu(), self.text().cpu(), self.tokenizer, transformer.latest(self._folder)
        )


def main() -> int:
    """Run the stages that are named, all of them by default."""
    asked = _arguments()
    torch.set_num_threads(threads())
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    parts = Parts(asked.checkpoints, {name: getattr(asked, f"{name}_steps") for name in _STEPS}, device)
    for stage in asked.stages or STAGES:
        if stage == "save":
            pipeline.save(parts.pipeline(), asked.out)
        elif stage == "evaluate":
            _evaluate(asked.out, asked.captions)
        else:
            getattr(parts, stage)()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=main.__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"any of {', '.join(STAGES)}; all by default")
    parser.add_argument("--checkpoints", type=Path, default=Path(".fluxfarm/training"), help="where training stands")
    parser.add_argument("--out", type=Path, default=pipeline.SHIPPED, help="the folder of the finished model")
    parser.add_argument("--device", help="cuda or cpu; cuda by default where there is one")
    parser.add_argument("--captions", type=int, default=300, help="held-out captions to draw for the figures")
    for name, steps in _STEPS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps)
    asked = parser.parse_args()
    if unknown := set(asked.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    return asked


def _evaluate(folder: Path, count: int) -> None:
    pipe = pipeline.load(folder)
    figures = {
        f"{width}x{height}": evaluate.score(pipe, count if width == height == 128 else count // 4, (width, height))
        for width, height in evaluate.MEASURED
    }
    for double in (False, True):
        figures[f"edits of {1 + double}"] = evaluate.score_edits(pipe, count // 4, double=double)
    for size, shares in figures.items():
        sys.stdout.write(f"{size}: {', '.join(f'{name} {share:.3f}' for name, share in shares.items())}\n")


if __name__ == "__main__":
    sys.exit(main())
