"""Muon: momentum whose update is made orthogonal. On this transformer it needs about half of AdamW's steps.

After Keller Jordan's description (https://kellerjordan.github.io/posts/muon), with the step size of Moonlight (arXiv
2502.16982), which makes AdamW's learning rates fit. In float32: bfloat16 is slow on most CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ROUNDS: Final = 5


class Muon(torch.optim.Optimizer):
    """For weights with two dimensions inside the network."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move each weight once; a closure is not needed."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(momentum, group["momentum"]))
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with all singular values near 1, by five rounds of a quintic Newton-Schulz iteration.

    All factors are polynomials of the small square of the matrix and commute, so only that one is iterated.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    square = x @ x.T
    one = torch.eye(len(square), device=square.device)
    factor = one
    for _ in range(_ROUNDS):
        step = a * one + b * square + c * square @ square
        factor = step @ factor
        square = step @ square @ step
    x = factor @ x
    found: torch.Tensor = x.T if tall else x
    return found
