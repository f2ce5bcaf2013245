"""Prompt embeddings in host memory, kept under a limit in bytes; what is found is what was put in, to the bit.

A key names all that an embedding depends on: the weights, the type of the numbers, the device, the prompt (by its hash,
so that no text outlives its job) and the length that is read. Sizes, seeds and steps are no part of it, so a campaign
encodes each of its prompts once, whatever it draws of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workers import metrics

if TYPE_CHECKING:
    import torch

#: of an embedding: made when it was needed, there from an earlier use, or made before anybody asked for it
Origin = Literal["encoded", "kept", "ahead"]


@dataclass(frozen=True, slots=True)
class Place:
    """What an embedding depends on."""

    weights: str  #: the revision, and how they were loaded
    prompt: str  #: SHA-256
    length: int


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a prompt became; ``values`` has the shape (1, length, channels)."""

    values: torch.Tensor
    origin: Origin


class Embeddings:
    """One for a worker process; it outlives the models that leave the device, and no two threads disturb each other."""

    def __init__(self, limit: int) -> None:
        """``limit`` is in bytes; 0 keeps nothing."""
        self._limit = limit
        self._kept: OrderedDict[Place, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, place: Place) -> Embedding | None:
        """The embedding, in host memory; None: it must be made."""
        with self._lock:
            found = self._kept.get(place)
            if found is not None:
                self._kept[place] = Embedding(found.values, "kept")
                self._kept.move_to_end(place)
            return found

    def has(self, place: Place) -> bool:
        """Whether it is there; asking is no use of it."""
        with self._lock:
            return place in self._kept

    def keep(self, place: Place, values: torch.Tensor, origin: Origin = "kept") -> None:
        """Keep it as long as there is room; the one that was not asked for the longest goes first.

        ``origin`` is what the first one hears who finds it.
        """
        with self._lock:
            self._drop(place)
            if values.nbytes > self._limit:
                return
            self._kept[place] = Embedding(values, origin)
            self._bytes += values.nbytes
            while self._bytes > self._limit:
                self._drop(next(iter(self._kept)))
            metrics.EMBEDDING_BYTES.set(self._bytes)

    def _drop(self, place: Place) -> None:
        gone = self._kept.pop(place, None)
        if gone is not None:
            self._bytes -= gone.values.nbytes
