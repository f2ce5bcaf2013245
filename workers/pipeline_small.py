"""The project's own small FLUX.2 models, all offline: real classes and real geometry, few weights.

They let a laptop and the tests run the very code that loads the real weights. The klein shape is trained and comes with
the farm (``training/``); the dev shape is built here with random weights and draws noise.

Geometry as in FLUX.2: VAE /8 with 32 latent channels, patches of 2, 128 channels a token, hidden states 10/20/30 (dev)
or 9/18/27 (klein) of the text encoder. Hence the 30 and 27 layers, which are micro-thin instead.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fluxfarm.catalog import BUILT_HERE, KLEIN_SMALL, SMALL
from fluxfarm.errors import ModelUnavailable
from workers.pipeline_loading import prepare

if TYPE_CHECKING:
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_SEED: Final = 20251124  # any fixed number; this one is the release day of FLUX.2 [dev]
_WIDTH: Final = 32  # channels of the text encoders
_VOCABULARY: Final = 1024
_BUILDING: Final = threading.Lock()  # the random weights come from torch's one global generator
_SHIPPED: Final = Path(__file__).parent / "weights" / "flux-2-klein-small"
_LEFTOVER_AGE: Final = 3600.0  # seconds after which an unfinished build is taken for dead

#: What the tokenizers learn from: the words that prompts are made of.
WORDS: Final = """
a an the and or of in on at to with without from for by near under over above below behind between into through across
is are photo photograph picture image painting drawing sketch illustration poster logo sign banner advertisement
product packaging portrait landscape close-up wide shot view angle aerial macro studio lighting light soft hard warm
cold natural dramatic golden hour sunset sunrise morning evening night day shadow reflection bokeh depth field focus
lens camera film grain 35mm 50mm 85mm red orange yellow green blue purple pink brown black white grey gray silver gold
beige turquoise bright dark pale vivid pastel man woman child girl boy person people face hand eyes hair smiling
standing sitting walking running holding wearing looking cat dog bird horse fish butterfly tree forest flower rose
leaf grass garden mountain hill river lake sea ocean beach sand sky cloud clouds rain snow fog storm star stars moon
sun city street road house building bridge window door room kitchen table chair car bicycle train ship plane bottle
cup glass plate food fruit apple lemon coffee tea bread cake shoe sneaker shirt dress hat circle square triangle large
small big little tall round old new modern vintage minimal clean simple elegant detailed realistic photorealistic
cinematic abstract surreal watercolor oil digital 3d render anime cartoon style texture wooden metal stone fabric
leather paper plastic background foreground left right centre center top bottom text words letters that says hello
world brand campaign summer winter spring autumn holiday sale discount high quality resolution sharp colorful
colourful beautiful reference replace change remove add keep same make turn put color colour one two three four five
six seven eight nine ten you are that reasons about image descriptions give structured responses focusing object
relationships attribution actions
"""

_TEMPLATE: Final = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}"
    "{% set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    "{% endif %}"
    "{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + text + '[/SYSTEM_PROMPT]' }}"
    "{% else %}{{ '[INST]' + text + '[/INST]' }}{% endif %}{% endfor %}"
)
_SPECIAL: Final = ("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]")


def ensure_small(slug: str, models_dir: Path) -> Path:
    """Give the folder of a small model; the dev shape is built when it is missing or was never finished.

    A folder with a ``model_index.json`` is taken as it is: it may hold trained weights by now.

    Raises:
        ModelUnavailable: the slug is none of ours, or the folder cannot be written or did not come with the farm.
    """
    if slug == KLEIN_SMALL.slug:
        if not (_SHIPPED / "model_index.json").is_file():
            raise ModelUnavailable(f"The weights of {slug} are missing from {_SHIPPED}: get the whole repository.")
        return _SHIPPED
    folder = models_dir / slug.rpartition("/")[2]
    if slug == SMALL.slug and (folder / "model_index.json").is_file():
        return folder
    return build_small(slug, folder)


def build_small(slug: str, folder: Path) -> Path:
    """Build the small model of the dev shape, the same bytes each time, and move it to ``folder`` in one step.

    Two processes may build at once: the first to finish wins and both get a whole folder.

    Raises:
        ModelUnavailable: the slug is not the one that is built, or the folder cannot be written.
    """
    if slug != SMALL.slug:
        raise ModelUnavailable(f"{slug} is not one of the small models; these are {', '.join(BUILT_HERE)}.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep_leftovers(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_prefix(folder), ignore_cleanup_errors=True) as made:
            finished = Path(made) / "model"
            with _seeded():
                _build_dev().save_pretrained(finished, safe_serialization=True)
            _move(finished, folder, Path(made) / "replaced")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelUnavailable(f"The small model cannot be written to {folder}: {reason}.") from error
    return folder


def _prefix(folder: Path) -> str:
    return f".{folder.name}.building-"


def _sweep_leftovers(folder: Path) -> None:
    """Remove what builds that were killed left behind."""
    for leftover in folder.parent.glob(f"{_prefix(folder)}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE:
                shutil.rmtree(leftover, ignore_errors=True)


def _move(finished: Path, folder: Path, aside: Path) -> None:
    """Put the finished folder in its place; another process that was faster keeps its own."""
    if folder.exists() and not (folder / "model_index.json").is_file():
        with contextlib.suppress(FileNotFoundError):  # another process moved it aside just now
            folder.rename(aside)
    try:
        finished.rename(folder)
    except OSError:
        if not (folder / "model_index.json").is_file():
            raise


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The same random weights each time, without a trace in the process's own random state."""
    prepare()
    import torch

    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield


def _build_dev() -> Any:
    from diffusers import Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

    text = MistralConfig(
        vocab_size=_VOCABULARY,
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=30,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=16
    )
    config = Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=_SPECIAL.index("[IMG]"), vision_feature_layer=-1
    )
    return Flux2Pipeline(
        scheduler=_scheduler(),
        vae=_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        # The real one is a PixtralProcessor, which needs torchvision for images that are never passed to it here;
        # the pipeline asks only for apply_chat_template.
        tokenizer=_tokenizer(),
        transformer=_transformer(),
    )


def learned_bpe(texts: Iterable[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE that any text passes through: so many tokens, the special ones first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=1,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _tokenizer() -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=learned_bpe([WORDS.replace("\n", " ")], _VOCABULARY, _SPECIAL),
        chat_template=_TEMPLATE,
        additional_special_tokens=list(_SPECIAL[3:]),
        model_max_length=4096,
        pad_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
    )


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    from diffusers import FlowMatchEulerDiscreteScheduler

    # Without use_dynamic_shifting the pipeline's mu is ignored silently; the other values are diffusers' defaults.
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _vae() -> AutoencoderKLFlux2:
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, mid_block_add_attention=False
    ).eval()


def _transformer() -> Flux2Transformer2DModel:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        num_layers=1,
        num_single_layers=2,
        num_attention_heads=2,
        attention_head_dim=32,
        axes_dims_rope=(8, 8, 8, 8),  # must sum to the head's width
        joint_attention_dim=3 * _WIDTH,  # three hidden states of the text encoder
        timestep_guidance_channels=32,
        guidance_embeds=True,
    ).eval()
