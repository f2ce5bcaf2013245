"""The settings that say how a picture tells that a model made it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxfarm.policies import PerhapsPath
from fluxfarm.tuning import Tuning


class Marking(Tuning):
    """A part of ``Settings``."""

    provenance: Literal["c2pa", "xmp"] = Field(
        "c2pa",
        alias="FLUXFARM_PROVENANCE",
        description="`c2pa` signs that a picture is AI-made, `xmp` only says so, unsigned.",
    )
    watermark: bool = Field(
        False,
        alias="FLUXFARM_WATERMARK",
        description="Mark the pixels of new pictures, invisibly, so that `verify` knows them without their metadata.",
    )
    c2pa_certificate: PerhapsPath = Field(
        None,
        alias="C2PA_CERTIFICATE",
        description="PEM file: signing certificate (ES256) and chain. Empty: a development one in the data folder.",
    )
    c2pa_key: PerhapsPath = Field(None, alias="C2PA_KEY", description="PEM file: its private key, without a password.")
