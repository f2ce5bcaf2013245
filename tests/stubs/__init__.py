"""Stand-ins for the remote providers, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from fluxfarm.offers import KINDS
from tests.stubs.bfl import BflStub
from tests.stubs.cloudflare import CloudflareStub
from tests.stubs.fal import FalStub
from tests.stubs.onemin import OneminStub
from tests.stubs.openai import OpenAIStub
from tests.stubs.replicate import ReplicateStub
from tests.stubs.server import Stub

STUBS: Final[Mapping[str, Callable[[], Stub]]] = {
    "fal": FalStub,
    "replicate": ReplicateStub,
    "bfl": BflStub,
    "cloudflare": CloudflareStub,
    "onemin": OneminStub,
    **{kind: partial(OpenAIStub, kind) for kind in KINDS},
}
