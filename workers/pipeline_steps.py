"""Steps whose blocks are left out, on the schedule of ``fluxfarm.acceleration``.

What the blocks add to the tokens changes little from one step to the next. A left-out step takes over what they added
in the last computed one, so only its embeddings and its output layer run. Nothing is compared and nothing decides: the
same steps are left out whoever shares the batch. Neither hooks nor wrappers touch the blocks, so compiled ones stay so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Residuals:
    """What the blocks added in the last computed pass of each kind; lives as long as one call of the pipeline."""

    def __init__(self, skipped: frozenset[int], passes: int) -> None:
        """``passes`` of the transformer make one step: two with true guidance, each of which has a residual."""
        self._skipped = skipped
        self._passes = passes
        self._count = -1
        self._before: torch.Tensor | None = None
        self._added: dict[int, torch.Tensor] = {}

    def begin(self) -> bool:
        """Another pass begins; whether its blocks are left out."""
        self._count += 1
        return self.is_left_out

    @property
    def is_left_out(self) -> bool:
        """Whether the blocks of this pass are."""
        return self._count // self._passes in self._skipped

    def enter(self, tokens: torch.Tensor) -> None:
        """The tokens, text first, before the first block."""
        self._before = tokens

    def leave(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens after the last block."""
        kind = self._count % self._passes
        if self.is_left_out:
            return tokens + self._added[kind]
        assert self._before is not None
        self._added[kind] = tokens - self._before
        return tokens


@contextmanager
def left_out(transformer: Any, skipped: frozenset[int], *, passes: int = 1) -> Iterator[None]:
    """Leave the blocks of these steps out, counted from 0 in the one call of the pipeline that this surrounds.

    Whatever ends the call, the transformer is as it was and the residuals are gone.
    """
    if not skipped:
        yield
        return
    import torch

    double, single = transformer.transformer_blocks, transformer.single_transformer_blocks
    residuals = Residuals(skipped, passes)

    class Entrance(torch.nn.Module):
        """Stands before the first block and is called like one."""

        def forward(
            self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            residuals.enter(torch.cat([encoder_hidden_states, hidden_states], dim=1))
            return encoder_hidden_states, hidden_states

    class Exit(torch.nn.Module):
        """Stands behind the last block."""

        def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
            return residuals.leave(hidden_states)

    entrance, leave = Entrance(), Exit()
    whole = torch.nn.ModuleList([entrance, *double]), torch.nn.ModuleList([*single, leave])
    short = torch.nn.ModuleList([entrance]), torch.nn.ModuleList([leave])

    def choose(*_: object) -> None:
        blocks = short if residuals.begin() else whole
        transformer.transformer_blocks, transformer.single_transformer_blocks = blocks

    handle = transformer.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
        transformer.transformer_blocks, transformer.single_transformer_blocks = double, single
