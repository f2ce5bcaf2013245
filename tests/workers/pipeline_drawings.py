"""Small drawings on the small models, and a look at what the pipeline's parts are called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from workers.pipeline import Drawing, Pipeline

SECRET = "a zebra that nobody must read about"


def drawing(**changes: Any) -> Drawing:
    fields = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "guidance": 3.0, "seeds": (5,), **changes}
    return Drawing(**fields)


def quietly(_done: int, _total: int) -> None:
    pass


def pixels(pipeline: Pipeline, **changes: Any) -> list[bytes]:
    return [image.tobytes() for image in pipeline.draw(drawing(**changes), quietly)]


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@contextmanager
def hooked(module: Any, hook: Callable[..., None]) -> Iterator[None]:
    """Runs the hook after each call of a part of the real pipeline."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    calls: list[int] = []
    with hooked(module, lambda *_: calls.append(1)):
        yield calls
