"""What every object store must do; ``test_objects.py`` runs it on the disk, ``tests/s3`` on S3 servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID, uuid4

import pytest

from fluxfarm.errors import InternalError, NotFound
from storage.objects import (
    CONTENT_TYPES,
    ObjectStore,
    StoredObject,
    attempt_prefix,
    job_prefix,
    object_key,
    reference_key,
    tenant_prefix,
)

TENANT = UUID("11111111-1111-4111-8111-111111111111")
REFUSED = {400, 403}  # rclone says 400 for an unsigned and for an expired link

HOSTILE = [
    "",
    "/",
    ".",
    "..",
    "t/../../etc/passwd",
    f"t/{TENANT}/../{TENANT}/references/a.png",
    f"/t/{TENANT}/references/a.png",
    f"t//{TENANT}/references/a.png",
    f"t/{TENANT}/references/a.png/",
    f"t/{TENANT}/references/a.png\n",
    f"t/{TENANT}/references/a\0.png",
    f"t/{TENANT}/references/%2e%2e/a.png",
    f"t/{TENANT}/references\\..\\a.png",
    f"t/{TENANT}/references/..a.png",
    f"t/{TENANT}/references/A.png",
    f"t/{TENANT}/references/é.png",
    f"t/{TENANT}/references/\u0661.png",
    f"t/{TENANT}/references/\ud800.png",
    f"t/{TENANT}/references/a.svg",
    f"t/{TENANT}/references/a.png.html",
    f"t/{TENANT}/.partial/a.png",
    f"t/{TENANT}/" + "a/" * 5 + "a.png",
    f"t/{TENANT}/references/" + "a" * 4000 + ".png",
    f"t/{TENANT}",
    "../link.secret",
]


@dataclass(frozen=True)
class Answer:
    """What came back for a link."""

    status: int
    content_type: str = ""
    disposition: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Rig:
    """A store that is empty, and a way to open its links as a caller without any key does."""

    store: ObjectStore
    fetch: Callable[[str], Answer]


def link(rig: Rig, key: str, *, ttl: int = 60, filename: str | None = None, inline: bool = True) -> str:
    return rig.store.presign(key, ttl=ttl, content_type="image/webp", filename=filename, inline=inline)


def with_query(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    assert changes.keys() <= query.keys()
    return urlunsplit(parts._replace(query=urlencode({**query, **changes})))


def signature_field(url: str) -> str:
    return "X-Amz-Signature" if "X-Amz-Signature" in url else "signature"


class ObjectStoreConformance:
    """The subclass gives the fixture ``rig``."""

    def test_what_was_put_is_read_back(self, rig: Rig) -> None:
        for extension, content_type in CONTENT_TYPES.items():
            key = object_key(TENANT, uuid4(), 1, 0, extension)
            rig.store.put(key, b"\x00\xffbody", content_type)
            assert rig.store.get(key) == b"\x00\xffbody"
            assert rig.store.stat(key) == StoredObject(key, 6, content_type)

    def test_a_missing_object_is_not_found(self, rig: Rig) -> None:
        key = reference_key(TENANT)
        with pytest.raises(NotFound):
            rig.store.get(key)
        assert rig.store.stat(key) is None
        assert list(rig.store.keys(tenant_prefix(TENANT))) == []
        assert rig.store.delete_prefix(tenant_prefix(TENANT)) == 0
        assert rig.fetch(link(rig, key)).status == 404

    def test_the_same_put_again_changes_nothing(self, rig: Rig) -> None:
        key = reference_key(TENANT)
        for _ in range(3):
            rig.store.put(key, b"same", "image/png")
        assert rig.store.get(key) == b"same"
        assert list(rig.store.keys("t/")) == [key]

    def test_a_hostile_name_is_just_missing(self, rig: Rig) -> None:
        for name in HOSTILE:
            with pytest.raises(NotFound):
                rig.store.get(name)
            assert rig.store.stat(name) is None
            with pytest.raises(NotFound):
                link(rig, name)
            with pytest.raises(InternalError):
                rig.store.put(name, b"", "image/png")
        assert list(rig.store.keys("t/")) == []

    def test_a_type_that_the_name_contradicts_is_refused(self, rig: Rig) -> None:
        with pytest.raises(InternalError):
            rig.store.put(reference_key(TENANT), b"<script>", "text/html")

    def test_one_object_goes_and_its_neighbour_stays(self, rig: Rig) -> None:
        gone, stays = reference_key(TENANT), reference_key(TENANT)
        for key in (gone, stays):
            rig.store.put(key, b"x", "image/png")
        rig.store.delete(gone)
        rig.store.delete(gone)
        assert rig.store.stat(gone) is None
        assert rig.store.get(stays) == b"x"
        with pytest.raises(NotFound):
            rig.store.delete("t/../../etc/passwd")

    def test_an_erasure_takes_exactly_its_folder(self, rig: Rig) -> None:
        job, other = uuid4(), uuid4()
        first = [object_key(TENANT, job, 1, n, "webp") for n in range(3)]
        rest = [object_key(TENANT, job, 10, 0, "webp"), object_key(TENANT, other, 1, 0, "webp"), reference_key(TENANT)]
        foreign = object_key(uuid4(), job, 1, 0, "webp")
        for key in [*first, *rest, foreign]:
            rig.store.put(key, key.encode(), CONTENT_TYPES[key.rpartition(".")[2]])
        assert set(rig.store.keys(attempt_prefix(TENANT, job, 1))) == set(first)
        assert rig.store.delete_prefix(attempt_prefix(TENANT, job, 1)) == 3
        assert set(rig.store.keys("t/")) == {*rest, foreign}
        assert rig.store.delete_prefix(job_prefix(TENANT, job)) == 1
        assert rig.store.delete_prefix(tenant_prefix(TENANT)) == 2
        assert list(rig.store.keys("t/")) == [foreign]
        assert rig.store.get(foreign) == foreign.encode()

    def test_an_erasure_needs_a_folder_of_one_tenant(self, rig: Rig) -> None:
        key = reference_key(TENANT)
        rig.store.put(key, b"kept", "image/png")
        for prefix in ("", "/", "t", "t/", "t/x/", f"t/{TENANT}", f"t/{TENANT}/a", f"t/{TENANT}/../"):
            with pytest.raises(InternalError):
                rig.store.delete_prefix(prefix)
        assert rig.store.get(key) == b"kept"

    def test_a_link_gives_body_type_and_disposition(self, rig: Rig) -> None:
        key = object_key(TENANT, uuid4(), 1, 0, "webp")
        rig.store.put(key, b"picture", "image/webp")
        cases: list[tuple[str | None, bool, str]] = [
            (None, True, "inline"),
            (None, False, "attachment"),
            ("fox.webp", False, 'attachment; filename="fox.webp"'),
            ("größe 1.webp", True, "inline; filename=\"gr__e 1.webp\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%201.webp"),
        ]
        for filename, inline, disposition in cases:
            answer = rig.fetch(link(rig, key, filename=filename, inline=inline))
            assert answer == Answer(200, "image/webp", disposition, b"picture")

    def test_an_altered_link_is_refused(self, rig: Rig) -> None:
        key, other = reference_key(TENANT), reference_key(TENANT)
        for name in (key, other):
            rig.store.put(name, b"secret", "image/png")
        url = link(rig, key)
        field = signature_field(url)
        signature = dict(parse_qsl(urlsplit(url).query))[field]
        life, longer = ("X-Amz-Expires", "600") if field != "signature" else ("expires", str(int(time.time()) + 600))
        kind = "response-content-type" if field != "signature" else "type"
        altered = {
            "key": url.replace(key, other),
            "signature": with_query(url, **{field: signature[:-1] + ("0" if signature[-1] != "0" else "1")}),
            "other signature": with_query(url, **{field: "0" * 64}),
            "expiry": with_query(url, **{life: longer}),
            "type": with_query(url, **{kind: "text/html"}),
            "unsigned": url.partition("?")[0],
        }
        assert rig.fetch(url).status == 200
        answers = {what: rig.fetch(changed) for what, changed in altered.items()}
        passed = {what: answer.status for what, answer in answers.items() if answer.status not in REFUSED}
        assert not passed, passed
        assert all(b"secret" not in answer.body for answer in answers.values())

    def test_a_link_expires(self, rig: Rig) -> None:
        key = reference_key(TENANT)
        rig.store.put(key, b"secret", "image/png")
        url = link(rig, key, ttl=1)
        deadline = time.monotonic() + 5
        while (answer := rig.fetch(url)).status == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer.status in REFUSED
        assert b"secret" not in answer.body
        assert rig.fetch(link(rig, key)).status == 200

    def test_a_life_that_no_link_can_have_is_refused(self, rig: Rig) -> None:
        for ttl in (-1, 0, 604_801):
            with pytest.raises(InternalError):
                link(rig, reference_key(TENANT), ttl=ttl)

    def test_threads_share_one_store(self, rig: Rig) -> None:
        job = uuid4()
        keys = [object_key(TENANT, job, 1, n, "webp") for n in range(16)]

        def there_and_back(key: str) -> bytes:
            rig.store.put(key, key.encode() * 500, "image/webp")
            return rig.store.get(key)

        with ThreadPoolExecutor(8) as threads:
            bodies = list(threads.map(there_and_back, [*keys, *keys]))
        assert bodies == [key.encode() * 500 for key in [*keys, *keys]]
        assert set(rig.store.keys(job_prefix(TENANT, job))) == set(keys)

    def test_a_store_that_works_passes_its_check(self, rig: Rig) -> None:
        rig.store.check()
        assert list(rig.store.keys("t/")) == []
