from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from storage.objects import ObjectStore, object_key
from storage.records import Tenant

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def key(store: ObjectStore, tenant: Tenant) -> str:
    made = object_key(tenant.id, uuid4(), 1, 0, "webp")
    store.put(made, CONTENT, "image/webp")
    return made


@pytest.fixture
def link(store: ObjectStore, key: str) -> str:
    return store.presign(key, ttl=60, content_type="image/webp", filename="füchse.webp", inline=True)


def test_a_link_needs_no_key_and_pins_type_and_name(api: TestClient, link: str) -> None:
    del api.headers["authorization"]
    got = api.get(link)
    assert (got.status_code, got.content) == (200, CONTENT)
    assert got.headers["content-type"] == "image/webp"
    assert got.headers["content-length"] == str(len(CONTENT))
    assert got.headers["content-disposition"].startswith('inline; filename="f_chse.webp"; filename*=')
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["cache-control"].startswith("private")
    assert api.get(link, headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    headed = api.head(link)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("wanted", "status", "content", "span"),
    [
        ("bytes=0-9", 206, CONTENT[:10], "bytes 0-9/1024"),
        ("bytes=1000-", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
        ("bytes=1000-9999", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
        ("bytes=-24", 206, CONTENT[-24:], "bytes 1000-1023/1024"),
        ("bytes=-9999", 206, CONTENT, "bytes 0-1023/1024"),
        ("bytes=9-3", 200, CONTENT, None),
        ("bytes=0-1,4-5", 200, CONTENT, None),
        ("lines=0-1", 200, CONTENT, None),
        ("bytes=a-b", 200, CONTENT, None),
        ("bytes=" + "9" * 40 + "-", 200, CONTENT, None),
    ],
)
def test_ranges(api: TestClient, link: str, wanted: str, status: int, content: bytes, span: str | None) -> None:
    got = api.get(link, headers={"Range": wanted})
    assert (got.status_code, got.content, got.headers.get("content-range")) == (status, content, span)


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_ranges_behind_the_end(api: TestClient, link: str, wanted: str) -> None:
    got = api.get(link, headers={"Range": wanted})
    assert (got.status_code, got.json()["code"]) == (416, "range_not_satisfiable")
    assert got.headers["content-range"] == "bytes */1024"


def test_a_range_of_another_version_is_the_whole(api: TestClient, link: str) -> None:
    got = api.get(link, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (got.status_code, got.content) == (200, CONTENT)
    same = api.get(link, headers={"Range": "bytes=0-1", "If-Range": got.headers["etag"]})
    assert same.status_code == 206


def test_an_expired_link(api: TestClient, store: ObjectStore, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = store.presign(key, ttl=1, content_type="image/webp", filename=None, inline=False)
    with monkeypatch.context() as later:
        signer = api.app.state.farm.store._signer  # type: ignore[attr-defined]
        later.setattr(signer, "_clock", lambda: 4_000_000_000.0)
        got = api.get(link)
    assert (got.status_code, got.json()["code"]) == (403, "link_expired")


@pytest.mark.parametrize("name", ["expires", "type", "disposition", "kid", "signature"])
def test_an_altered_link(api: TestClient, link: str, name: str) -> None:
    parts = urlsplit(link)
    query = {field: values[0] for field, values in parse_qs(parts.query).items()}
    for changed in (query | {name: query[name] + "0"}, {k: v for k, v in query.items() if k != name}):
        got = api.get(f"{parts.path}?{urlencode(changed)}")
        assert (got.status_code, got.json()["code"]) == (403, "forbidden"), name
    got = api.get(parts.path.replace("/1/0-", "/2/0-") + "?" + parts.query)
    assert got.status_code == 403


@pytest.mark.parametrize("path", ["x", "..%2f..%2fetc%2fpasswd", "t/%00", "t/../../link.secret", "link.secret"])
def test_hostile_paths(api: TestClient, path: str) -> None:
    got = api.get(f"/objects/{path}")
    assert got.status_code in (403, 404)
    assert got.headers["content-type"] == "application/problem+json"


def test_an_erased_object(api: TestClient, store: ObjectStore, key: str, link: str) -> None:
    store.delete_prefix(key.rpartition("/")[0] + "/")
    assert api.get(link).status_code == 404
