"""Signed provenance: a C2PA manifest that says a picture was made by a model, and what a picture's manifest says.

It is written last, over the very bytes that are stored: any change of one of them shows. It holds no prompt and no name
of a tenant. C2PA specification 2.2: action ``c2pa.created`` with the IPTC source type ``trainedAlgorithmicMedia``.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import c2pa

from fluxfarm import __version__
from fluxfarm.errors import RenderFailed, UnsupportedMediaType
from fluxfarm.settings import Settings
from storage.signing_identity import Identity, identity

SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
GENERATOR: Final = "Fluxfarm"
NO_THUMBNAIL: Final = {
    "builder": {"thumbnail": {"enabled": False}}
}  #: it would make a small WebP thirty times as large
READABLE: Final = ("image/png", "image/jpeg", "image/webp", "image/avif", "image/gif")
UNTRUSTED: Final = "signingCredential.untrusted"

Verdict = Literal["made_here", "signed_elsewhere", "changed", "unsigned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a file says of its making.

    ``made_here``: signed under this farm's authority, and not a bit differs since. ``signed_elsewhere``: intact, under
    another authority. ``changed``: it carries a manifest that its bytes no longer match. ``unsigned``: no manifest.
    """

    verdict: Verdict
    generator: str | None = None
    model: str | None = None
    source_type: str | None = None
    signed_by: str | None = None
    problems: tuple[str, ...] = ()  #: C2PA's own status codes


class Provenance:
    """Signs with one identity and trusts its authority; safe to share between threads."""

    def __init__(self, who: Identity) -> None:
        """Nothing is read or written yet."""
        self._who = who
        self._trust = {"trust": {"user_anchors": who.anchor.decode()}, "verify": {"verify_trust": True}}

    def sign(self, body: bytes, content_type: str, model: str) -> bytes:
        """The same picture with its manifest; the pixels are untouched, about 13 kB are added.

        Raises:
            RenderFailed: the file cannot be signed.
        """
        out = io.BytesIO()
        try:
            signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self._who.chain, self._who.key, None)
            )
            context = c2pa.Context(c2pa.Settings.from_dict(NO_THUMBNAIL))
            c2pa.Builder(_manifest(model), context).sign(signer, content_type, io.BytesIO(body), out)
        except c2pa.C2paError as error:
            raise RenderFailed(f"The picture could not be signed: {error}.") from error
        return out.getvalue()

    def inspect(self, body: bytes) -> Findings:
        """What a file's manifest says, and whether it is true.

        Raises:
            UnsupportedMediaType: no picture of a format that the farm makes.
        """
        content_type = _sniff(body)
        try:
            context = c2pa.Context(c2pa.Settings.from_dict(self._trust))
            told = json.loads(c2pa.Reader(content_type, io.BytesIO(body), context=context).json())
        except c2pa.C2paError as error:
            missing = "ManifestNotFound" in str(error)
            return Findings(verdict="unsigned") if missing else Findings(verdict="changed", problems=(str(error),))
        return _findings(told)


def open_provenance(settings: Settings) -> Provenance | None:
    """What the settings name; None with ``FLUXFARM_PROVENANCE=xmp``, which leaves it at the unsigned mark.

    Raises:
        InternalError: the operator's certificate cannot be used.
        StoreUnavailable: the data folder cannot be used.
    """
    return Provenance(identity(settings)) if settings.provenance == "c2pa" else None


def _manifest(model: str) -> dict[str, Any]:
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": {"name": model}}
    return {
        "claim_generator_info": [{"name": GENERATOR, "version": __version__}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _findings(told: dict[str, Any]) -> Findings:
    manifest = told["manifests"][told["active_manifest"]]
    problems = tuple(one["code"] for one in told.get("validation_status", ()))
    created: dict[str, Any] = next(
        (
            action
            for assertion in manifest.get("assertions", ())
            if assertion["label"].startswith("c2pa.actions")
            for action in assertion["data"]["actions"]
            if action["action"] == "c2pa.created"
        ),
        {},
    )
    generators = manifest.get("claim_generator_info") or [{}]
    verdict: Verdict = "made_here"
    if set(problems) - {UNTRUSTED}:
        verdict = "changed"
    elif problems:
        verdict = "signed_elsewhere"
    return Findings(
        verdict=verdict,
        generator=generators[0].get("name"),
        model=created.get("softwareAgent", {}).get("name"),
        source_type=created.get("digitalSourceType"),
        signed_by=manifest.get("signature_info", {}).get("common_name"),
        problems=problems,
    )


def _sniff(body: bytes) -> str:
    if body[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    if body[:3] == b"\xff\xd8\xff":
        return "image/jpeg"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    if body[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    if body[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    raise UnsupportedMediaType(f"Only {', '.join(READABLE)} can be looked at.", param="file")
