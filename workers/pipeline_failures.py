"""What an error of the pipeline means for the job, told without the prompt, and without keeping tensors alive."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

from fluxfarm.errors import DeviceLost, OutOfMemory, RenderError, RenderFailed

_NO_ROOM: Final = (
    "out of memory",  # CUDA, HIP, MPS
    "can't allocate memory",  # torch on the CPU
    "not enough memory",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
_DEAD: Final = ("CUDA error", "HIP error", "cuDNN error", "device-side assert")
_LIBRARIES: Final = ("torch", "diffusers", "transformers", "accelerate")
_REASON_LENGTH: Final = 160  # characters of a library's own message


def translate(error: Exception, prompt: str = "") -> RenderError:
    """The error as one of the tree's leaves: OutOfMemory, DeviceLost or RenderFailed.

    The prompt never gets into the message: only torch's RuntimeErrors (shapes, dtypes, devices) are quoted. The
    tokenizers, templates and input checks, which read the prompt, raise others; of these the type and place are told.
    """
    if _is_out_of_memory(error):
        return OutOfMemory("The device has no room for this render: ask for fewer pixels or fewer references.")
    where, inside_library = _origin(error)
    reason = f"{type(error).__name__}{where}"
    words = one_line(str(error))
    if words and inside_library and isinstance(error, RuntimeError) and not (prompt and prompt in str(error)):
        reason = f"{reason}: {words}"
    if _is_device_lost(error):
        return DeviceLost(f"The device failed and this worker must start again ({reason}).")
    return RenderFailed(f"The pipeline raised {reason}.")


def one_line(text: str) -> str:
    """The first line of a library's message, cut to 160 characters and without its full stop."""
    line = text.strip().partition("\n")[0].strip()
    return line.rstrip(".:") if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}…"


def forget(error: BaseException) -> None:
    """Let go of what the frames of a traceback hold: latents, embeddings and caches live as long as they do."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        waiting += [found.__cause__, found.__context__]


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_ROOM)


def _is_device_lost(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _DEAD)


def _origin(error: Exception) -> tuple[str, bool]:
    """The module and line that raised, and whether that is one of the libraries."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return "", False
    module = str(last.tb_frame.f_globals.get("__name__", "?"))
    return f" at {module}:{last.tb_lineno}", module.partition(".")[0] in _LIBRARIES
