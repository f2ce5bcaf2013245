"""Signing of the local store's links."""

from __future__ import annotations

import itertools
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluxfarm.errors import Forbidden, InternalError, LinkExpired, StoreUnavailable
from fluxfarm.settings import Settings
from storage.links import LinkSigner, SignedLink, content_disposition, link_signer

OLD, NEW = "the old secret 1234", "the new secret 5678"
NOW = 1_800_000_000.5


def signer(*ring: str, now: float = NOW) -> LinkSigner:
    return LinkSigner.of(ring or (NEW,), clock=lambda: now)


def sign(key: str = "a/1", ttl: int = 60, by: LinkSigner | None = None) -> dict[str, str]:
    return (by or signer()).sign(key, ttl=ttl, content_type="image/png", disposition="inline")


def test_a_link_tells_what_was_signed() -> None:
    params = sign()
    assert params.keys() == {"expires", "type", "disposition", "kid", "signature"}
    assert signer().verify("a/1", params) == SignedLink("a/1", 1_800_000_060, "image/png", "inline", params["kid"])
    assert NEW not in "".join(params.values())


@pytest.mark.parametrize("name", ["expires", "type", "disposition", "kid", "signature"])
@pytest.mark.parametrize("change", ["", " ", "0", "é", "\ud800", "\0", "inline\n"])
def test_any_altered_field_is_forbidden(name: str, change: str) -> None:
    params = sign()
    for altered in (params[name] + change, change + params[name], change):
        if altered != params[name]:
            with pytest.raises(Forbidden) as caught:
                signer().verify("a/1", {**params, name: altered})
            assert type(caught.value) is Forbidden
    with pytest.raises(Forbidden):
        signer().verify("a/1", {key: value for key, value in params.items() if key != name})


def test_key_and_method_are_signed() -> None:
    params = sign("a/1")
    for key, method in [("a/2", "GET"), ("a/1 ", "GET"), ("", "GET"), ("a/1", "PUT"), ("a/1", "get")]:
        with pytest.raises(Forbidden):
            signer().verify(key, params, method=method)


def test_fields_cannot_be_shifted_into_each_other() -> None:
    one = signer(now=0).sign("a/1", ttl=799, content_type="image/png", disposition="inline")
    two = signer(now=0).sign("a/17", ttl=99, content_type="image/png", disposition="inline")
    assert ("a/1" + one["expires"], one["kid"]) == ("a/17" + two["expires"], two["kid"])
    assert one["signature"] != two["signature"]
    parts = ["1", "11", "1\n", "1:1", "\n2:11", ""]
    signatures = {
        signer(now=0).sign(key, ttl=1, content_type="image/png", disposition=disposition)["signature"]
        for key, disposition in itertools.product(parts, parts)
    }
    assert len(signatures) == len(parts) ** 2


def test_a_link_ends_on_its_second() -> None:
    params = sign(ttl=60)
    assert signer(now=NOW + 59).verify("a/1", params).expires == 1_800_000_060
    with pytest.raises(LinkExpired):
        signer(now=1_800_000_060.0).verify("a/1", params)


def test_an_expired_link_that_was_altered_is_not_ours() -> None:
    params = {**sign(ttl=60), "expires": "1"}
    with pytest.raises(Forbidden) as caught:
        signer(now=NOW + 100).verify("a/1", params)
    assert not isinstance(caught.value, LinkExpired)


def test_a_secret_is_rotated_without_a_gap() -> None:
    before = sign(by=signer(OLD))
    during = signer(NEW, OLD)
    assert during.verify("a/1", before).kid == before["kid"]
    after = sign(by=during)
    assert signer(NEW).verify("a/1", after).kid != before["kid"]
    with pytest.raises(Forbidden):
        signer(NEW).verify("a/1", before)
    with pytest.raises(Forbidden):
        during.verify("a/1", {**before, "kid": after["kid"]})


def test_key_ids_can_be_named() -> None:
    named = LinkSigner({"2026": NEW, "2025": OLD}, "2026", clock=lambda: NOW)
    assert sign(by=named)["kid"] == "2026"
    with pytest.raises(InternalError):
        LinkSigner({"2026": NEW}, "2025")
    twins = LinkSigner({"2026": NEW, "2025": NEW}, "2026", clock=lambda: NOW)
    with pytest.raises(Forbidden):  # the id is signed too
        twins.verify("a/1", {**sign(by=twins), "kid": "2025"})


@pytest.mark.parametrize("ring", [[], ["short"], [NEW, ""], [NEW, "x" * 15]])
def test_a_weak_ring_is_refused(ring: list[str]) -> None:
    with pytest.raises(InternalError) as caught:
        LinkSigner.of(ring)
    assert NEW not in caught.value.message


def test_a_content_type_cannot_carry_a_header() -> None:
    with pytest.raises(InternalError):
        signer().sign("a/1", ttl=1, content_type="image/png\r\nSet-Cookie: a=b", disposition="inline")


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    settings = Settings(FLUXFARM_DATA_DIR=tmp_path / "new" / "data", FLUXFARM_LINK_SECRET="")
    with ThreadPoolExecutor(16) as threads:
        signers = list(threads.map(lambda _: link_signer(settings), range(16)))
    assert len({one.sign("k", ttl=1, content_type="a/b", disposition="")["kid"] for one in signers}) == 1
    kept = tmp_path / "new" / "data" / "link.secret"
    assert [path.name for path in kept.parent.iterdir()] == ["link.secret"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(kept.read_text().strip()) == 64


def test_the_setting_wins_and_may_name_an_old_secret(tmp_path: Path) -> None:
    old = link_signer(Settings(FLUXFARM_DATA_DIR=tmp_path, FLUXFARM_LINK_SECRET="secret-of-last-year"))
    both = link_signer(
        Settings(FLUXFARM_DATA_DIR=tmp_path, FLUXFARM_LINK_SECRET="secret-of-this-year, secret-of-last-year")
    )
    assert both.verify("a/1", old.sign("a/1", ttl=60, content_type="image/png", disposition="inline")).key == "a/1"
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_secret_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "link.secret").write_text("")
    with pytest.raises(InternalError):
        link_signer(Settings(FLUXFARM_DATA_DIR=tmp_path, FLUXFARM_LINK_SECRET=""))
    (tmp_path / "link.secret").write_bytes(b"\xff" * 32)
    with pytest.raises(StoreUnavailable):
        link_signer(Settings(FLUXFARM_DATA_DIR=tmp_path, FLUXFARM_LINK_SECRET=""))


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("", "attachment"),
        ("...", "attachment"),
        ("\r\nSet-Cookie: a=b.png", 'attachment; filename="Set-Cookie: a=b.png"'),
        ('../../"a".png', 'attachment; filename="_..__a_.png"'),
        ("gpj.\u202eexe", 'attachment; filename="gpj.exe"'),
        ("\ud800.png", 'attachment; filename="png"'),
        ("猫.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%E7%8C%AB.png"),
        ("a" * 500 + ".png", f'attachment; filename="{"a" * 116}.png"'),
    ],
)
def test_a_file_name_cannot_break_out_of_its_header(filename: str, header: str) -> None:
    assert content_disposition(filename, inline=False) == header
    assert header.isascii()
    assert header.isprintable()
