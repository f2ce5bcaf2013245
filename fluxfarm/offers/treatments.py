"""What becomes of each parameter of a ``promptObject`` on its way to a provider, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import not_
from types import MappingProxyType
from typing import Any, Final


class Behaviour(StrEnum):
    """What becomes of a parameter on its way to a provider: Lumenfall's four words and the honest fifth."""

    PASSTHROUGH = "passthrough"  #: sent as it is
    RENAMED = "renamed"  #: the same value under the provider's own name
    CONVERTED = "converted"  #: changed into the provider's form
    EMULATED = "emulated"  #: done by the farm, as the provider cannot
    IGNORED = "ignored"  #: neither the provider nor the farm can; it changes nothing


@dataclass(frozen=True, slots=True)
class Treatment:
    """One parameter: ``target`` is the provider's name or form of it, empty where there is none.

    ``convert`` makes the provider's value; a converted parameter without it is the adapter's own work.
    """

    behaviour: Behaviour
    target: str = ""
    convert: Callable[[Any], Any] | None = None


PASSED: Final = Treatment(Behaviour.PASSTHROUGH)
EMULATED: Final = Treatment(Behaviour.EMULATED)
IGNORED: Final = Treatment(Behaviour.IGNORED)

SIZE_NAMES: Final = ("size", "aspect_ratio", "resolution", "megapixels", "width", "height")


def renamed(target: str) -> Treatment:
    """The same value under another name."""
    return Treatment(Behaviour.RENAMED, target)


def converted(target: str, convert: Callable[[Any], Any] | None = None) -> Treatment:
    """Another value, made by ``convert`` or by the adapter."""
    return Treatment(Behaviour.CONVERTED, target, convert)


def inverted(target: str) -> Treatment:
    """The opposite truth value."""
    return converted(target, not_)


def clamped(target: str, low: float, high: float) -> Treatment:
    """The nearest number that the provider takes."""
    return converted(target, lambda value: min(high, max(low, value)))


def wrapped(target: str, largest: int) -> Treatment:
    """A seed modulo ``largest + 1``: the provider's seeds end there."""
    return converted(target, lambda seed: seed % (largest + 1))


def parameters(
    *,
    size: Treatment,
    seed: Treatment = PASSED,
    steps: Treatment = IGNORED,
    guidance: Treatment = IGNORED,
    images: Treatment = IGNORED,
    **options: Treatment,
) -> Mapping[str, Treatment]:
    """The whole table: what is not named here is emulated (n, formats, quality) or ignored (the options)."""
    table = {
        "prompt": PASSED,
        **dict.fromkeys(SIZE_NAMES, size),
        "n": EMULATED,
        "seed": seed,
        "num_inference_steps": steps,
        "steps": steps,
        "guidance": guidance,
        "output_format": EMULATED,
        "output_quality": EMULATED,
        "images": images,
        "prompt_upsampling": IGNORED,
        "go_fast": IGNORED,
        "acceleration": IGNORED,
        "disable_safety_checker": IGNORED,
        "prompt_strength": IGNORED,
        "loras": IGNORED,
    }
    return MappingProxyType(table | options)
