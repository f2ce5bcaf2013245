"""Denoising steps whose blocks are skipped on a fixed schedule: the farm's `acceleration`, without the farm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def skipped_steps(steps: int, level: str) -> frozenset[int]:
    """The farm's schedule: of 8 steps or more the first quarter and the last are computed, else one of two or three."""
    every = {"regular": 2, "high": 3}.get(level)
    if every is None or steps < 8:
        return frozenset()
    first = round(steps / 4)
    return frozenset(step for step in range(first, steps - 1) if (step - first) % every != every - 1)


@contextmanager
def skipping(transformer: Any, skipped: frozenset[int]) -> Iterator[None]:
    """Passes of these numbers add what the blocks added in the last computed one, and run none of them."""
    inside: dict[str, Any] = {"step": -1}

    class Head(torch.nn.Module):
        def forward(self, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> tuple[Any, Any]:
            inside["in"] = torch.cat([encoder_hidden_states, hidden_states], dim=1)
            return encoder_hidden_states, hidden_states

    class Tail(torch.nn.Module):
        def forward(self, hidden_states: Any, **_: Any) -> Any:
            if inside["step"] in skipped:
                return hidden_states + inside["added"]
            inside["added"] = hidden_states - inside["in"]
            return hidden_states

    double, single, head, tail = transformer.transformer_blocks, transformer.single_transformer_blocks, Head(), Tail()

    def choose(*_: object) -> None:
        inside["step"] += 1
        blocks = inside["step"] not in skipped
        transformer.transformer_blocks = torch.nn.ModuleList([head, *(double if blocks else ())])
        transformer.single_transformer_blocks = torch.nn.ModuleList([*(single if blocks else ()), tail])

    handle = transformer.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
        transformer.transformer_blocks, transformer.single_transformer_blocks = double, single
