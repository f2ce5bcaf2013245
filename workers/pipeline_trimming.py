"""The part of a text encoder that nothing reads is not kept: exact to the bit, and a quarter of its time and memory.

FLUX.2 reads three hidden states from inside the language model. What lies behind the last of them (10 of the 40 layers
of [dev]'s Mistral, 9 of the 36 of [klein]'s Qwen) and the head that gives words change no picture.
"""

from __future__ import annotations

from typing import Any, Final

#: The hidden states that the pipelines read by default; the last one is what comes out of so many layers.
LAST_READ: Final = {"Flux2Pipeline": 30, "Flux2KleinPipeline": 27}


def trim(text_encoder: Any, class_name: str) -> None:
    """Cut off the layers behind the last that is read, and the head; it can rewrite no prompts afterwards.

    The last hidden state passes the final norm, those before it do not: where layers go, the norm must go with them.
    """
    import torch

    language = getattr(text_encoder.model, "language_model", text_encoder.model)
    if len(language.layers) > LAST_READ[class_name]:
        language.layers = language.layers[: LAST_READ[class_name]]
        language.norm = torch.nn.Identity()
    text_encoder.lm_head = torch.nn.Identity()


def is_trimmed(text_encoder: Any) -> bool:
    """Whether it has no head any more."""
    import torch

    return isinstance(text_encoder.lm_head, torch.nn.Identity)
