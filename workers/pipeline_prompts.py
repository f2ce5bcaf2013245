"""From a prompt to its embedding: counted first, since the pipelines cut silently, then encoded once and kept."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from fluxfarm.errors import PromptTooLong
from workers.pipeline_embeddings import Embeddings, Place

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
        # Counting must not wait for a render, and a fast tokenizer breaks when two threads set its padding at once.
        self._tokenizer_lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Tokens of the prompt inside the model's chat template, system message included, nothing cut."""
        with self._tokenizer_lock:
            return self._count_dev(prompt) if self._is_dev else self._count_klein(prompt)

    def encode(self, prompt: str, max_sequence_length: int) -> torch.Tensor:
        """The embedding, shape (1, ``max_sequence_length``, channels), on the pipeline's device.

        Raises:
            PromptTooLong: the prompt has more tokens than are read.
        """
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        place = Place(self._weights, digest, max_sequence_length)
        found = self._embeddings.find(place)
        if found is None:
            found = self._encode(prompt, max_sequence_length)
            self._embeddings.keep(place, found)
        return found.to(self._pipe.device)

    def _encode(self, prompt: str, max_sequence_length: int) -> torch.Tensor:
        import torch

        tokens = self.count(prompt)
        if tokens > max_sequence_length:
            raise PromptTooLong(
                f"The prompt has {tokens} tokens and the model reads {max_sequence_length}, its template included: "
                "shorten the prompt.",
                param="prompt",
            )
        with self._tokenizer_lock, torch.no_grad():
            embedding, _ = self._pipe.encode_prompt(prompt=prompt, max_sequence_length=max_sequence_length)
        return embedding.detach().to("cpu")  # type: ignore[no-any-return]

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
