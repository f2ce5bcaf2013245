"""The S3 store against servers that speak the wire protocol."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

import storage.objects_s3
from fluxfarm.errors import Conflict, StoreUnavailable
from fluxfarm.settings import Settings
from storage.objects import make_store, object_key, reference_key, tenant_prefix
from storage.objects_s3 import S3Store
from tests.s3.conftest import Make
from tests.s3.faulty import forwarder
from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Server
from tests.storage.object_conformance import TENANT, Answer, ObjectStoreConformance, Rig


def fetch(url: str) -> Answer:
    """What a caller without any key sees."""
    reply = httpx.get(url, timeout=10, trust_env=False)
    kind, disposition = (reply.headers.get(name, "") for name in ("content-type", "content-disposition"))
    return Answer(reply.status_code, kind, disposition, reply.content)


def link(store: S3Store, key: str) -> str:
    return store.presign(key, ttl=60, content_type="image/png", filename=None, inline=True)


class TestS3Store(ObjectStoreConformance):
    @pytest.fixture
    def rig(self, store: S3Store) -> Rig:
        return Rig(store, fetch)


def test_the_stored_type_is_what_was_put(store: S3Store) -> None:
    key = reference_key(TENANT)
    store.put(key, b"x", "image/png")
    bare = store._client.generate_presigned_url("get_object", Params={"Bucket": store._bucket, "Key": key})
    assert fetch(bare).content_type == "image/png"


def test_links_are_signed_with_sigv4(store: S3Store) -> None:
    query = parse_qs(urlsplit(link(store, reference_key(TENANT))).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]
    assert "AWSAccessKeyId" not in query


def test_a_link_only_reads(store: S3Store) -> None:
    key = reference_key(TENANT)
    store.put(key, b"first", "image/png")
    for method in ("PUT", "DELETE", "POST"):
        reply = httpx.request(method, link(store, key), content=b"second", timeout=10, trust_env=False)
        assert reply.status_code in {400, 403, 405}
    assert store.get(key) == b"first"


def test_a_link_serves_ranges(store: S3Store, server: Server) -> None:
    key = reference_key(TENANT)
    store.put(key, b"0123456789", "image/png")
    reply = httpx.get(link(store, key), headers={"Range": "bytes=2-5"}, timeout=10, trust_env=False)
    assert reply.content == b"2345"
    assert reply.headers["content-range"] == "bytes 2-5/10"
    assert reply.status_code == (200 if server.name == "rclone" else 206)  # rclone forgets the status


def test_links_name_the_public_endpoint_and_work_there(server: Server, store: S3Store, make: Make) -> None:
    key = reference_key(TENANT)
    store.put(key, b"x", "image/png")
    with forwarder(server.port) as port:
        public = f"http://localhost:{port}"
        url = link(make(server.url, S3_PUBLIC_ENDPOINT_URL=public), key)
        assert url.startswith(f"{public}/{store._bucket}/{key}?")
        assert fetch(url) == Answer(200, "image/png", "inline", b"x")
        assert fetch(url.replace(public, server.url)).status == 403  # the host is part of the signature


def test_a_link_of_a_wrong_secret_is_refused(server: Server, store: S3Store, make: Make) -> None:
    key = reference_key(TENANT)
    store.put(key, b"x", "image/png")
    url = link(make(server.url, S3_SECRET_ACCESS_KEY="another-secret-key"), key)
    assert fetch(url).status == 403


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("rclone", "S3_SECRET_ACCESS_KEY"),  # ministack looks only at the key id of a header
        ("rclone", "S3_ACCESS_KEY_ID"),
        ("ministack", "S3_ACCESS_KEY_ID"),
    ],
)
def test_wrong_credentials_are_an_outage_without_secrets(
    request: pytest.FixtureRequest, make: Make, name: str, setting: str
) -> None:
    server: Server = request.getfixturevalue(name)
    make(server.url).ensure_bucket()
    wrong, key = make(server.url, **{setting: "quite-wrong-value"}), reference_key(TENANT)
    calls = [
        lambda: wrong.put(key, b"x", "image/png"),
        lambda: wrong.get(key),
        lambda: wrong.stat(key),
        lambda: list(wrong.keys("t/")),
        lambda: wrong.delete_prefix(tenant_prefix(TENANT)),
        wrong.check,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert not any(word in caught.value.message for word in ("quite-wrong", ACCESS_KEY, SECRET_KEY))


def test_other_bytes_under_the_same_key_are_a_conflict(ministack: Server, make: Make) -> None:
    store, key = make(ministack.url), reference_key(TENANT)
    store.ensure_bucket()
    store.put(key, b"first", "image/png")
    with pytest.raises(Conflict):
        store.put(key, b"second", "image/png")
    assert store.get(key) == b"first"


def test_a_server_without_if_none_match_replaces(rclone: Server, make: Make) -> None:
    """A limit of such servers, written down: only the random key keeps two writers apart."""
    store, key = make(rclone.url), reference_key(TENANT)
    store.ensure_bucket()
    store.put(key, b"first", "image/png")
    store.put(key, b"second", "image/png")
    assert store.get(key) == b"second"


def test_erasing_goes_in_batches(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.objects_s3, "_BATCH", 3)
    job = uuid4()
    for n in range(7):
        store.put(object_key(TENANT, job, 1, n, "webp"), b"x", "image/webp")
    assert store.delete_prefix(tenant_prefix(TENANT)) == 7
    assert list(store.keys("t/")) == []


def test_more_objects_than_one_page_lists(rclone: Server, make: Make) -> None:
    """rclone's buckets are folders, so 1203 objects are there at once."""
    store = make(rclone.url)
    store.ensure_bucket()
    keys = {reference_key(TENANT) for _ in range(1203)}
    folder = rclone.folder / store._bucket
    (folder / next(iter(keys))).parent.mkdir(parents=True)
    for key in keys:
        (folder / key).write_bytes(b"x")
    assert set(store.keys("t/")) == keys
    assert store.delete_prefix(tenant_prefix(TENANT)) == 1203
    assert list(store.keys("t/")) == []


def test_a_missing_bucket_is_an_outage_until_it_is_made(server: Server, make: Make) -> None:
    store, key = make(server.url), reference_key(TENANT)
    with pytest.raises(StoreUnavailable, match=store._bucket):
        store.check()
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.put(key, b"x", "image/png")
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.get(key)
    for _ in range(2):
        store.ensure_bucket()
    store.check()
    store.put(key, b"x", "image/png")


def test_a_bucket_in_the_settings_chooses_s3(rclone: Server, bucket: str) -> None:
    values = {"S3_ENDPOINT_URL": rclone.url, "S3_ACCESS_KEY_ID": ACCESS_KEY, "S3_SECRET_ACCESS_KEY": SECRET_KEY}
    store = make_store(Settings.model_validate({"S3_BUCKET": bucket, **values}))
    assert isinstance(store, S3Store)
    store.ensure_bucket()
    store.check()
    store.close()


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"S3_REGION": "eu-central-1"}, "https://{bucket}.s3.eu-central-1.amazonaws.com/t/"),
        ({"S3_ADDRESSING_STYLE": "path"}, "https://s3.amazonaws.com/{bucket}/t/"),
        ({"S3_BUCKET": "dotted.name"}, "https://s3.amazonaws.com/dotted.name/t/"),
    ],
)
def test_links_to_aws_name_its_hosts(
    make: Make, bucket: str, changes: dict[str, str], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.test")  # the farm's own settings count
    assert link(make("", **changes), reference_key(TENANT)).startswith(start.format(bucket=bucket))
