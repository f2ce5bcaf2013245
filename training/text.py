"""Trains the text encoder of the small model: a Qwen3 that says, at the end of a prompt, which attributes it asks for.

Each value of each attribute has a direction of its own in the stream, orthogonal to all others. From the prompt's last
token on, padding included, the stream is trained to be the sum of what the whole prompt asks for, whatever its wording.
The transformer then learns from few pictures, as it need not learn English.

The pipeline reads the streams after layers 9, 18 and 27. Layers from 10 on start as, and stay, the identity.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from training.captions import ATTRIBUTES, NOTHING, Asked, caption, labels, of_card, thin_out
from training.checkpoints import Run
from training.sampling import training_card
from workers.pipeline_small import WORDS, learned_bpe

WIDTH: Final = 96
LAYERS: Final = 27
LIVE: Final = 6  #: layers that are trained
LENGTH: Final = 64  #: tokens of a prompt
STEPS: Final = 1500
_BATCH: Final = 48
_RATE: Final = 3e-3
_WARM_UP: Final = 100
_VOCABULARY: Final = 1280
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
#: Short, as each token of it is one less for the prompt.
_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|>' }}{% endif %}"
)


def new_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that any text passes through, learned from captions and the words of other prompts."""
    rng = np.random.default_rng((seed, 2))
    captions = (caption(random_request(rng), rng) for _ in range(6000))
    bpe = learned_bpe([*captions, WORDS.replace("\n", " ")], _VOCABULARY, _SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        chat_template=_TEMPLATE,
        additional_special_tokens=[_SPECIAL[1]],
        model_max_length=4096,
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[0],
    )


def new() -> Any:
    """The untrained encoder: random up to layer ``LIVE``, the identity from there on."""
    config = Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, 1)
        for layer in model.model.layers[LIVE:]:
            for weight in layer.parameters():
                if weight.ndim > 1:
                    weight.zero_()
    return model


def directions(seed: int) -> torch.Tensor:
    """The direction of each value, shape (values of all attributes, width), scaled so that a sum has unit variance."""
    values = sum(len(names) + 1 for names in ATTRIBUTES.values())
    generator = torch.Generator().manual_seed(seed)
    square: torch.Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return square[:values] * math.sqrt(WIDTH / len(ATTRIBUTES))


def code(asked: list[Asked], table: torch.Tensor) -> torch.Tensor:
    """What the stream should be for each request, shape (requests, width)."""
    numbers = torch.tensor([labels(one) for one in asked])
    found: torch.Tensor = table[numbers + _firsts()].sum(1)
    return found


def read(streams: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The number of each attribute's value that a stream shows, shape (..., attributes)."""
    scores: torch.Tensor = streams @ table.T
    ends = [*_firsts()[1:].tolist(), len(table)]
    best = [scores[..., first:end].argmax(-1) for first, end in zip(_firsts().tolist(), ends, strict=True)]
    return torch.stack(best, -1)


def random_request(rng: np.random.Generator) -> Asked:
    """Anything that a prompt may ask for, of the cards in training."""
    chance = rng.random()
    if chance < 0.03:
        return NOTHING
    if chance < 0.15:
        names = list(ATTRIBUTES["colour"])
        colour, back = (str(name) for name in rng.choice(names, 2, replace=False))
        which = rng.integers(4)
        if which == 0:
            return Asked(edit="colours", first=None, second=None)
        return Asked(
            colour=colour if which > 1 else None,
            background=back if which != 2 else None,
            first=None,
            second=None,
            edit="object",
        )
    if chance < 0.2:
        return thin_out(of_card(training_card(rng)), rng, 0.7)
    return thin_out(of_card(training_card(rng)), rng, 0.15 if chance < 0.6 else 0.0)


def tokens(tokenizer: Any, prompts: list[str], length: int = LENGTH) -> dict[str, torch.Tensor]:
    """As the pipeline prepares them: the template, cut and padded to ``length``."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for prompt in prompts
    ]
    found = tokenizer(texts, return_tensors="pt", padding="max_length", truncation=True, max_length=length)
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def train(folder: Path, tokenizer: Any, seed: int, steps: int, device: str) -> Any:
    """Train, or go on where the folder's checkpoint stands; gives the finished encoder on ``device``."""
    run = Run(folder, "text", steps)
    torch.manual_seed(seed)
    model = new().to(device)
    table = directions(seed).to(device)
    live = [model.model.embed_tokens.weight, *model.model.layers[:LIVE].parameters()]
    optimizer = torch.optim.AdamW(live, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if found := run.resume():
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        first = found["step"]
    for step in range(first + 1, steps + 1):
        rng = np.random.default_rng((seed, 3, step))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        asked = [random_request(rng) for _ in range(_BATCH)]
        inputs = tokens(tokenizer, [caption(one, rng) for one in asked], LENGTH if step % 4 == 0 else LENGTH // 2)
        inputs = {name: value.to(device) for name, value in inputs.items()}
        streams = live_streams(model, inputs)
        tail = is_tail(inputs["attention_mask"])
        target = code(asked, table.cpu()).to(device)[:, None].expand_as(streams)
        loss = (streams - target).square()[tail].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(live, 1.0)
        optimizer.step()
        if step % 20 == 0:
            right = read(streams[tail], table) == read(target[tail], table)
            run.tell(step, float(loss.detach()), f"attributes {float(right.all(-1).float().mean()):.3f}")
        if run.is_due(step):
            run.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return model.eval()


def is_tail(attention_mask: torch.Tensor) -> torch.Tensor:
    """Where the whole prompt is known: its last token and the padding after it."""
    place = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return place >= attention_mask.sum(1, keepdim=True) - 1


def live_streams(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The stream after the trained layers, which those behind it hand on unchanged."""
    body = model.model
    layers, body.layers = body.layers, body.layers[:LIVE]
    norm, body.norm = body.norm, torch.nn.Identity()
    try:
        streams: torch.Tensor = body(**inputs, use_cache=False).last_hidden_state
    finally:
        body.layers, body.norm = layers, norm
    return streams


def _firsts() -> torch.Tensor:
    sizes = torch.tensor([len(names) + 1 for names in ATTRIBUTES.values()])
    return torch.cumsum(sizes, 0) - sizes
