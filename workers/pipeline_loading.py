"""From a folder or a hub id to a FLUX.2 pipeline in memory; a broken folder gives one clear error and nothing else.

Only two pipeline classes and their own parts are ever loaded, from safetensors, without running code from the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fluxfarm.errors import DeviceLost, ModelUnavailable, OutOfMemory
from workers.pipeline_failures import forget, one_line, translate
from workers.pipeline_kernels import Kernels, prepare_allocator, tune
from workers.pipeline_prompts import PromptEncoder
from workers.pipeline_trimming import trim

MODEL_INDEX: Final = "model_index.json"
_MIB: Final = 1 << 20
_SAMPLES: Final = 64  # of 1 MiB each from a weight file that is larger than all of them together
_COUNTED: Final = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model"})
_WANTED: Final = [MODEL_INDEX, *(f"*/*{suffix}" for suffix in sorted(_COUNTED))]
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_DEVICE: Final = re.compile(r"cpu|mps|cuda(:\d{1,2})?")

_SHARED: Final = {
    "transformer": ("diffusers", "Flux2Transformer2DModel"),
    "vae": ("diffusers", "AutoencoderKLFlux2"),
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
}
#: The pipelines that may be loaded, and the class of each part; the tokenizer may be any class of transformers.
PIPELINES: Final = {
    "Flux2Pipeline": {**_SHARED, "text_encoder": ("transformers", "Mistral3ForConditionalGeneration")},
    "Flux2KleinPipeline": {**_SHARED, "text_encoder": ("transformers", "Qwen3ForCausalLM")},
}
_WEIGHTED: Final = ("text_encoder", "transformer", "vae")
_CONFIGS: Final = {part: f"{part}/config.json" for part in _WEIGHTED} | {"scheduler": "scheduler/scheduler_config.json"}
#: Weights that no prompt of ours ever passes through: a folder may lack them.
_UNUSED: Final = ("lm_head.", "vision_tower.", "multi_modal_projector.", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A diffusers pipeline on its device, and what the record says about it."""

    pipe: Any
    class_name: str
    revision: str
    device: str
    dtype: str
    tuned: dict[str, str]
    memory: int  #: bytes that the device gave for it
    reading: int  #: bytes that the smallest drawing took beside them: not less than encoding its prompt


def load(
    folder_or_hub: Path | str,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    allow_downloads: bool,
    keep_words: bool = False,
    kernels: Kernels,
) -> Loaded:
    """Load a pipeline; see ``Pipeline.load`` for the parameters.

    Raises:
        ModelUnavailable: the weights are missing or broken, or the device is not there.
        OutOfMemory: the device has no room for the weights.
        DeviceLost: the device failed.
    """
    prepare()
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    folder, revision = _find(folder_or_hub, revision, allow_downloads=allow_downloads)
    class_name = _check_folder(folder)
    failure: ModelUnavailable | OutOfMemory | DeviceLost
    before = _allocated()
    try:
        pipe = _load_pipe(folder, class_name, device, dtype, keep_words=keep_words)
        tuned = tune(pipe, kernels, device)
        reading = _taken(lambda: _try_out(folder, pipe, class_name), device)
        memory = _allocated() - before if device.startswith("cuda") else _size(pipe)
        return Loaded(pipe, class_name, revision or folder_revision(folder), device, dtype, tuned, memory, reading)
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  # safetensors, tokenizers and accelerate raise bare Exceptions
        forget(error)
        meaning = translate(error)
        if isinstance(meaning, OutOfMemory):
            failure = OutOfMemory(f"{device} has no room for the model in {folder}: take a larger device.")
        elif isinstance(meaning, DeviceLost):
            failure = meaning
        elif type(error).__module__.startswith("torch._dynamo"):
            failure = ModelUnavailable(
                f"FLUXFARM_COMPILE=regional cannot be had here ({type(error).__name__}: {one_line(str(error))}): "
                "install a C++ compiler, or set it to none."
            )
        elif isinstance(error, ImportError):  # PixtralProcessor, of dev, needs torchvision
            failure = ModelUnavailable(f"To load {folder}, install what is missing here: {one_line(str(error))}.")
        else:
            failure = _broken(folder, f"{type(error).__name__}: {one_line(str(error).replace(f'{folder}/', ''))}")
    raise failure


def _allocated() -> int:
    """Bytes that live tensors take on all GPUs; quantised ones tell of themselves what they were before."""
    import torch

    return sum(torch.cuda.memory_allocated(number) for number in range(torch.cuda.device_count()))


def _taken(do: Callable[[], None], device: str) -> int:
    """The most bytes that a GPU gave meanwhile, beside those that stay; 0 for devices that count nothing."""
    import torch

    if not device.startswith("cuda"):
        do()
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    do()
    return int(torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device))


def _size(pipe: Any) -> int:
    """Bytes of the weights, for devices that count nothing."""
    parts = (pipe.transformer, pipe.text_encoder, pipe.vae)
    tensors = {id(tensor): tensor for part in parts for tensor in (*part.parameters(), *part.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def prepare() -> None:
    """Import the libraries for a farm: no progress bars or load reports in the log, no threads that spin.

    OpenMP's threads spin at each barrier by default. On a CPU that is shared with anything else this made a picture
    take 2 to 14 times as long (measured, 2 cores); asleep they cost little. It must be said before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare_allocator()
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def pick_device(device: str) -> str:
    """``auto`` is cuda, else mps, else cpu.

    Raises:
        ModelUnavailable: no such device on this machine.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    found = _DEVICE.fullmatch(device)
    if found is None:
        raise ModelUnavailable(f"FLUXFARM_DEVICE is {device!r}; it can be auto, cuda, cuda:1, mps or cpu.")
    cards = torch.cuda.device_count() if device.startswith("cuda") else 0
    if (device.startswith("cuda") and int((found[1] or ":0")[1:]) >= cards) or (device == "mps" and not has_mps):
        raise ModelUnavailable(
            f"torch finds no device {device!r} on this machine: set FLUXFARM_DEVICE=auto, or install its driver and "
            "the torch build for it."
        )
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """``auto`` is bfloat16 on an accelerator and float32 on the CPU, where bfloat16 is slow."""
    if dtype == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if dtype not in {"bfloat16", "float16", "float32"}:
        raise ModelUnavailable(f"FLUXFARM_DTYPE is {dtype!r}; it can be auto, bfloat16, float16 or float32.")
    return dtype


def folder_revision(folder: Path) -> str:
    """The commit of a folder in the hub's cache, else the hash of its contents."""
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    return content_revision(folder)


def content_revision(folder: Path) -> str:
    """40 hex digits that name the weights and configurations of a folder, like a commit.

    SHA-256, cut, over the sorted names, sizes and bytes. Of a file over 64 MiB only 64 samples of 1 MiB, evenly spread
    from first to last, are read: 100 GB would take minutes, and training changes weights everywhere.
    """
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _COUNTED and path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _SAMPLES * _MIB:
                whole.update(hashlib.file_digest(file, "sha256").digest())
                continue
            for sample in range(_SAMPLES):
                file.seek((size - _MIB) * sample // (_SAMPLES - 1))
                whole.update(file.read(_MIB))
    return whole.hexdigest()[:40]


def _find(folder_or_hub: Path | str, revision: str | None, *, allow_downloads: bool) -> tuple[Path, str | None]:
    """The local folder, fetched from the hub if need be and allowed, and the revision if it is known already."""
    is_folder = isinstance(folder_or_hub, Path) or folder_or_hub.startswith(("/", "./", "../", "~"))
    if is_folder or Path(folder_or_hub).is_dir():
        return Path(folder_or_hub).expanduser(), revision
    hub_id = str(folder_or_hub)
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ModelUnavailable(f"{hub_id} needs a pinned revision, the 40 hex digits of a commit: {hub_id}@0123….")
    return _hub_folder(hub_id, revision, local_files_only=not allow_downloads), revision


def _hub_folder(hub_id: str, revision: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        index = hf_hub_download(hub_id, MODEL_INDEX, revision=revision, local_files_only=local_files_only)
        _read_index(Path(index).parent)  # before 100 GB are fetched
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=_WANTED, local_files_only=local_files_only)
        )
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  # the hub's client has a dozen, and its transport more
        reason = type(error).__name__
    what = (
        f"run `hf download {hub_id} --revision {revision}` on this machine, or set FLUXFARM_ALLOW_DOWNLOADS=true"
        if local_files_only
        else "check the name, the revision, the network and HF_TOKEN (gated models ask for a login)"
    )
    raise ModelUnavailable(f"{hub_id}@{revision} is not in the local cache or cannot be fetched ({reason}): {what}.")


def _check_folder(folder: Path) -> str:
    """The pipeline's class, when the folder has every part of it."""
    class_name, index = _read_index(folder)
    for part, (library, name) in PIPELINES[class_name].items():
        if index.get(part) != [library, name]:
            raise _broken(folder, f"its {part} is {_named(index.get(part))} and not {library}'s {name}")
    tokenizer = index.get("tokenizer")
    if not isinstance(tokenizer, list) or tokenizer[:1] != ["transformers"]:
        raise _broken(folder, f"its tokenizer is {_named(tokenizer)} and not one of transformers")
    for part in (*PIPELINES[class_name], "tokenizer"):
        if not (folder / part).is_dir():
            raise _broken(folder, f"{part}/ is missing")
    for part, config in _CONFIGS.items():
        _check_config(folder, config, PIPELINES[class_name][part][1])
    for part in _WEIGHTED:
        if not any((folder / part).glob("*.safetensors")):
            raise _broken(folder, f"{part}/ has no .safetensors file, and pickled weights (.bin, .pt) are never loaded")
    return class_name


def _check_config(folder: Path, path: str, name: str) -> None:
    """Without this file the libraries build a default model, tens of gigabytes of random numbers, and say nothing."""
    config = _read_json(folder, path)
    if config.get("_class_name") != name and name not in (config.get("architectures") or ()):
        raise _broken(folder, f"{path} does not describe a {name}")


def _read_index(folder: Path) -> tuple[str, dict[str, Any]]:
    if not (folder / MODEL_INDEX).is_file():
        there = "has no model_index.json" if folder.is_dir() else "does not exist"
        message = f"The model folder {folder} {there}: put a diffusers pipeline there, or correct FLUXFARM_MODELS."
        raise ModelUnavailable(message)
    index = _read_json(folder, MODEL_INDEX)
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or class_name not in PIPELINES:
        raise ModelUnavailable(
            f"The model folder {folder} holds {_named(class_name)}; the farm renders {' and '.join(PIPELINES)} only."
        )
    return class_name, index


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_bytes())
    except OSError as error:
        raise _broken(folder, f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _broken(folder, f"{name} is not JSON") from None
    if not isinstance(found, dict):
        raise _broken(folder, f"{name} is not a JSON object")
    return found


def _load_pipe(folder: Path, class_name: str, device: str, dtype: str, *, keep_words: bool) -> Any:
    import diffusers
    import torch
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    pipeline_class = getattr(diffusers, class_name)
    has_words = keep_words and hasattr(pipeline_class, "upsample_prompt")  # klein has no use for them
    parts: dict[str, Any] = {}
    for part in _WEIGHTED:
        library, name = PIPELINES[class_name][part]
        model, info = getattr(libraries[library], name).from_pretrained(
            folder / part,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=library == "transformers",  # which else points to a report that nobody sees
        )
        missing = sorted(key for key in info["missing_keys"] if not any(unused in key for unused in _UNUSED))
        wrong = [*missing, *(key for key, *_ in info["mismatched_keys"])]
        if wrong:  # the libraries fill these with random numbers and go on
            raise _broken(folder, f"in {part}/ {len(wrong)} weights are missing or misshapen, {wrong[0]} for one")
        if part == "text_encoder" and not has_words:
            trim(model, class_name)
        # Each part moves before the next is read, so that host memory holds only the largest.
        parts[part] = model.to(device).eval()
    pipe = pipeline_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _try_out(folder: Path, pipe: Any, class_name: str) -> None:
    """Draw the smallest picture: parts that do not fit together, or a wrong template, show here and not in a job.

    It is also the warm-up: the first call in a process takes seconds more than the next.
    """
    import torch

    tokenizer = getattr(pipe.tokenizer, "tokenizer", pipe.tokenizer)  # a processor has the tokenizer inside
    highest = max(tokenizer.get_vocab().values())
    known = pipe.text_encoder.get_input_embeddings().num_embeddings
    if highest >= known:  # on CUDA, one token too high kills the process
        raise _broken(folder, f"its tokenizer counts up to {highest}, its text encoder knows {known} tokens")
    PromptEncoder(pipe, class_name).count("a")
    image = pipe(prompt="a", height=64, width=64, num_inference_steps=1, guidance_scale=1.0, output_type="pt").images
    if not bool(torch.isfinite(image).all()):
        raise _broken(folder, "what it draws is not a number; float16 is too narrow for FLUX.2")


def _broken(folder: Path, reason: str) -> ModelUnavailable:
    return ModelUnavailable(f"The model folder {folder} is broken ({reason.rstrip('.')}): download or build it again.")


def _named(value: object) -> str:
    """What a file says, short enough for a sentence."""
    return repr(value)[:80] if value is not None else "nothing"
