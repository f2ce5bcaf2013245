"""From a prompt to its embedding: counted first, since the pipelines cut silently, then encoded once and kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from fluxfarm.errors import PromptTooLong

if TYPE_CHECKING:
    import torch

_KEPT: Final = 8  #: embeddings in RAM: one is 8 MB (klein-4B) to 16 MB (dev) in bfloat16


class PromptEncoder:
    """Encodes prompts with a pipeline's own text encoder; a campaign with one prompt encodes it once.

    What is kept lies in host memory under the prompt's hash, so that no text outlives its job.
    """

    def __init__(self, pipe: Any, class_name: str) -> None:
        self._pipe = pipe
        self._is_dev = class_name == "Flux2Pipeline"
        self._kept: OrderedDict[tuple[str, int], torch.Tensor] = OrderedDict()
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
        import torch

        key = (hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(), max_sequence_length)
        found = self._kept.get(key)
        if found is None:
            tokens = self.count(prompt)
            if tokens > max_sequence_length:
                raise PromptTooLong(
                    f"The prompt has {tokens} tokens and the model reads {max_sequence_length}, its template included: "
                    "shorten the prompt.",
                    param="prompt",
                )
            with self._tokenizer_lock, torch.no_grad():
                embedding, _ = self._pipe.encode_prompt(prompt=prompt, max_sequence_length=max_sequence_length)
            found = self._kept[key] = embedding.detach().to("cpu")
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found.to(self._pipe.device)

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
