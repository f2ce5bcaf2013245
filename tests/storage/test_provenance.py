"""Signed provenance on every format, by the C2PA library's own reader: true, altered, foreign, missing, re-encoded."""

from __future__ import annotations

import io
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from fluxfarm.errors import InternalError, UnsupportedMediaType
from fluxfarm.settings import Settings
from storage.provenance import SOURCE_TYPE, Provenance, open_provenance
from storage.signing_identity import identity
from workers.encoding import CODECS, encode

MODEL = "fluxfarm/flux-2-klein-small"


def at(folder: Path) -> Settings:
    return Settings().model_copy(update={"data_dir": folder, "c2pa_certificate": None, "c2pa_key": None})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Provenance:
    return Provenance(identity(at(tmp_path_factory.mktemp("ours"))))


def drawn(output_format: str, signer: Provenance | None) -> bytes:
    picture = Image.effect_noise((96, 64), 60).convert("RGB")
    sign = None if signer is None else lambda body, kind: signer.sign(body, kind, MODEL)
    return encode(picture, output_format=output_format, quality=80, width=96, height=64, sign=sign).body


@pytest.mark.parametrize("output_format", CODECS)
def test_every_format_says_who_made_it_and_by_which_model(ours: Provenance, output_format: str) -> None:
    body = drawn(output_format, ours)
    found = ours.inspect(body)
    assert (found.verdict, found.problems) == ("made_here", ())
    assert (found.generator, found.model, found.source_type) == ("Fluxfarm", MODEL, SOURCE_TYPE)
    assert found.signed_by == "Fluxfarm development"
    with Image.open(io.BytesIO(body)) as picture:
        picture.load()
        assert picture.size == (96, 64)


@pytest.mark.parametrize("output_format", CODECS)
def test_one_altered_bit_shows(ours: Provenance, output_format: str) -> None:
    body = bytearray(drawn(output_format, ours))
    body[-40 if output_format != "png" else body.rindex(b"IDAT") + 40] ^= 1
    assert ours.inspect(bytes(body)).verdict == "changed"


@pytest.mark.parametrize("output_format", CODECS)
def test_the_signature_leaves_the_pixels_alone_and_adds_little(ours: Provenance, output_format: str) -> None:
    plain = drawn(output_format, None)
    signed = ours.sign(plain, CODECS[output_format].content_type, MODEL)
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(signed)) as after:
        assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes()
    assert len(signed) - len(plain) < 16_000


def test_a_re_encoded_copy_is_unsigned_and_a_strangers_signature_is_told_apart(
    ours: Provenance, tmp_path: Path
) -> None:
    body = drawn("png", ours)
    out = io.BytesIO()
    with Image.open(io.BytesIO(body)) as picture:
        picture.save(out, "PNG")
    assert ours.inspect(out.getvalue()).verdict == "unsigned"
    theirs = Provenance(identity(at(tmp_path)))
    found = theirs.inspect(body)
    assert (found.verdict, found.problems) == ("signed_elsewhere", ("signingCredential.untrusted",))


@pytest.mark.parametrize("body", [b"", b"GIF", b"<svg/>", b"%PDF-1.7", b"RIFF____WAVE"])
def test_what_is_no_picture_is_refused(ours: Provenance, body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        ours.inspect(body)


def test_processes_that_start_together_agree_on_one_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: identity(at(tmp_path)).chain, range(8)))
    assert len(found) == 1
    (place,) = (tmp_path / "c2pa").iterdir()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_the_operators_files_count_and_half_of_them_is_an_error(tmp_path: Path) -> None:
    made = identity(at(tmp_path / "a"))
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.chain)
    key.write_bytes(made.key)
    both = at(tmp_path / "b").model_copy(update={"c2pa_certificate": certificate, "c2pa_key": key})
    assert identity(both).anchor == made.anchor
    for broken in ({"c2pa_key": None}, {"c2pa_certificate": tmp_path / "none.pem"}, {"c2pa_key": certificate}):
        with pytest.raises(InternalError, match="C2PA_"):
            identity(both.model_copy(update=broken))


def test_without_c2pa_nothing_signs(tmp_path: Path) -> None:
    assert open_provenance(at(tmp_path).model_copy(update={"provenance": "xmp"})) is None
