"""From a prompt to its embedding: counted first, since the pipelines cut silently, then encoded once and kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fluxfarm.errors import PromptTooLong
from workers import metrics
from workers.pipeline_embeddings import Embedding, Embeddings, Place

if TYPE_CHECKING:
    import torch


class PromptEncoder:
    """Encodes prompts with a pipeline's own text encoder; a campaign with one prompt encodes it once.

    What is kept lies in host memory: one embedding is 8 MB (klein-4B) to 16 MB (dev) in bfloat16.
    """

    def __init__(self, pipe: Any, class_name: str, weights: str = "", embeddings: Embeddings | None = None) -> None:
        """``weights`` names the text encoder's and how they were loaded; it is needed to share ``embeddings``."""
        self._pipe = pipe
        self._weights = weights
        self._embeddings = embeddings or Embeddings(0)
        self._is_dev = class_name == "Flux2Pipeline"
        # Counting must not wait for a render. A fast tokenizer breaks when two threads set its padding at once, and
        # transformers changes the encoder's layers while it collects their hidden states.
        self._lock = threading.Lock()
        self._stream: Any = None

    def count(self, prompt: str) -> int:
        """Tokens of the prompt inside the model's chat template, system message included, nothing cut."""
        with self._lock:
            return self._count(prompt)

    def encode(self, prompt: str, max_sequence_length: int) -> Embedding:
        """The embedding, ``max_sequence_length`` tokens long, on the pipeline's device.

        Raises:
            PromptTooLong: the prompt has more tokens than are read.
        """
        place = self._place(prompt, max_sequence_length)
        found = self._embeddings.find(place)
        if found is None:
            with self._lock:
                found = self._embeddings.find(place)  # it was just being encoded ahead
                if found is None:
                    found = Embedding(self._encode(prompt, max_sequence_length), "encoded")
                    self._embeddings.keep(place, found.values)
        metrics.EMBEDDINGS.labels(found.origin).inc()
        return Embedding(found.values.to(self._pipe.device), found.origin)

    def encode_ahead(self, prompt: str, max_sequence_length: int) -> bool:
        """Have it ready for ``encode``, made beside what else the device does; False: it is there, or the model is not.

        Raises:
            PromptTooLong: as ``encode``.
        """
        place = self._place(prompt, max_sequence_length)
        with self._lock:
            if self._pipe is None or self._embeddings.has(place):
                return False
            with self._beside():
                values = self._encode(prompt, max_sequence_length)
            self._embeddings.keep(place, values, "ahead")
        return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else uses the text encoder meanwhile."""
        with self._lock:
            yield

    def close(self) -> None:
        """Let the model go, once nothing is encoded any more."""
        with self._lock:
            self._pipe = self._stream = None

    def _place(self, prompt: str, max_sequence_length: int) -> Place:
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        return Place(self._weights, digest, max_sequence_length)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """On a stream of its own, where a device has streams: what is drawn in the other one does not wait for it."""
        import torch

        if self._pipe.device.type != "cuda":
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._pipe.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            yield

    def _encode(self, prompt: str, max_sequence_length: int) -> torch.Tensor:
        """In host memory; whoever calls holds the lock."""
        import torch

        tokens = self._count(prompt)
        if tokens > max_sequence_length:
            raise PromptTooLong(
                f"The prompt has {tokens} tokens and the model reads {max_sequence_length}, its template included: "
                "shorten the prompt.",
                param="prompt",
            )
        # Without a device the pipeline searches all its modules, the ones that a drawing may be exchanging among them.
        device = self._pipe.text_encoder.device
        with torch.no_grad():
            values, _ = self._pipe.encode_prompt(prompt=prompt, device=device, max_sequence_length=max_sequence_length)
        return values.detach().to("cpu")  # type: ignore[no-any-return]

    def _count(self, prompt: str) -> int:
        return self._count_dev(prompt) if self._is_dev else self._count_klein(prompt)

    def _count_dev(self, prompt: str) -> int:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        tokens = self._pipe.tokenizer.apply_chat_template(
            format_input([prompt], system_message=self._pipe.system_message),
            add_generation_prompt=False,
            tokenize=True,
            return_dict=True,
        )
        return len(tokens["input_ids"][0])

    def _count_klein(self, prompt: str) -> int:
        text = self._pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return len(self._pipe.tokenizer(text)["input_ids"])
