"""The local disk as an object store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest

from fluxfarm.errors import Conflict, FluxfarmError, InternalError, NotFound, StoreUnavailable
from fluxfarm.settings import Settings
from storage.links import LinkSigner
from storage.objects import job_prefix, make_store, object_key, reference_key, tenant_prefix
from storage.objects_local import LocalStore
from tests.storage.object_conformance import HOSTILE, TENANT, Answer, ObjectStoreConformance, Rig

BASE = "http://farm.test:8000"
ROOT = Path(__file__).parents[2]


def local_store(folder: Path) -> LocalStore:
    return LocalStore(folder / "objects", BASE + "/", LinkSigner.of(["a secret of sixteen or more"]))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestLocalStore(ObjectStoreConformance):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
        store = local_store(tmp_path)

        def fetch(url: str) -> Answer:
            parts = urlsplit(url)
            assert url.startswith(f"{BASE}/objects/t/")
            try:
                served = store.open_link(parts.path.removeprefix("/objects/"), dict(parse_qsl(parts.query)))
            except FluxfarmError as error:
                return Answer(error.status)
            assert served.size == served.path.stat().st_size
            return Answer(200, served.content_type, served.disposition, served.path.read_bytes())

        return Rig(store, fetch)


def test_keys_hold_tenant_job_attempt_and_128_random_bits() -> None:
    job = uuid4()
    keys = {object_key(TENANT, job, 3, 7, "webp") for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(rf"t/{TENANT}/{job}/3/7-[0-9a-f]{{32}}\.webp", key) for key in keys)
    assert re.fullmatch(rf"t/{TENANT}/references/[0-9a-f]{{32}}\.png", reference_key(TENANT))


@pytest.mark.parametrize("extension", ["svg", "html", "../png", "PNG", ""])
def test_a_key_has_a_known_extension(extension: str) -> None:
    with pytest.raises(InternalError):
        object_key(TENANT, uuid4(), 1, 0, extension)


def test_other_bytes_under_the_same_key_are_a_conflict(tmp_path: Path) -> None:
    store, key = local_store(tmp_path), reference_key(TENANT)
    store.put(key, b"first", "image/png")
    with pytest.raises(Conflict):
        store.put(key, b"second", "image/png")
    assert store.get(key) == b"first"
    assert files(tmp_path) == [f"objects/{key}"]


def test_one_of_many_rivals_wins_a_key(tmp_path: Path) -> None:
    store, key = local_store(tmp_path), reference_key(TENANT)

    def rival(n: int) -> int | None:
        try:
            store.put(key, b"%d" % n * 10_000, "image/png")
        except Conflict:
            return None
        return n

    with ThreadPoolExecutor(8) as threads:
        winners = [n for n in threads.map(rival, range(8)) if n is not None]
    assert len(winners) == 1
    assert store.get(key) == b"%d" % winners[0] * 10_000
    assert files(tmp_path) == [f"objects/{key}"]


def test_puts_and_sweeps_of_one_job_do_not_trip_each_other(tmp_path: Path) -> None:
    store, job = local_store(tmp_path), uuid4()

    def put(n: int) -> None:
        store.put(object_key(TENANT, job, 1, n, "webp"), b"x", "image/webp")

    with ThreadPoolExecutor(8) as threads:
        puts = [threads.submit(put, n) for n in range(60)]
        swept = sum(store.delete_prefix(job_prefix(TENANT, job)) for _ in range(60))
        for done in puts:
            done.result()
    assert swept + store.delete_prefix(tenant_prefix(TENANT)) == 60
    assert files(tmp_path) == []


def test_an_erasure_leaves_no_empty_folder(tmp_path: Path) -> None:
    store, job = local_store(tmp_path), uuid4()
    store.put(object_key(TENANT, job, 1, 0, "webp"), b"x", "image/webp")
    store.delete_prefix(job_prefix(TENANT, job))
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [".partial"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_opens_a_file_outside(tmp_path: Path, name: str) -> None:
    store = local_store(tmp_path)
    with pytest.raises(NotFound):
        store.open_path(name)
    assert files(tmp_path) == []


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path) -> None:
    store, key = local_store(tmp_path), reference_key(TENANT)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "objects" / "t").symlink_to(outside)
    with pytest.raises(NotFound):
        store.put(key, b"x", "image/png")
    (outside / str(TENANT) / "references").mkdir(parents=True)
    (outside / key.removeprefix("t/")).write_bytes(b"private")
    with pytest.raises(NotFound):
        store.get(key)


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """A child whose files may hold 64 KiB: the write fails half-way, as on a full disk."""
    script = f"""
        import resource, sys
        from pathlib import Path
        from fluxfarm.errors import StoreUnavailable
        from tests.storage.test_objects import local_store
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        store = local_store(Path(sys.argv[1]))
        try:
            store.put({(big := reference_key(TENANT))!r}, bytes(1_000_000), "image/png")
        except StoreUnavailable as error:
            print(error.message)
        store.put({(small := reference_key(TENANT))!r}, bytes(1000), "image/png")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "The disk of the object store is full.\n"
    assert big != small
    assert files(tmp_path) == [f"objects/{small}"]


def test_a_store_whose_folder_vanished_is_unavailable(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    (tmp_path / "objects" / ".partial").rmdir()
    (tmp_path / "objects").rmdir()
    with pytest.raises(StoreUnavailable):
        store.check()
    with pytest.raises(StoreUnavailable) as caught:
        store.put(reference_key(TENANT), b"x", "image/png")
    assert str(tmp_path) not in caught.value.message
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file is in the way")
    with pytest.raises(StoreUnavailable):
        local_store(tmp_path)


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path: Path) -> None:
    local_store(tmp_path)
    partial = tmp_path / "objects" / ".partial"
    (partial / "fresh").write_bytes(b"")
    (partial / "stale").write_bytes(b"")
    os.utime(partial / "stale", (0, 0))
    store = local_store(tmp_path)
    assert files(partial) == ["fresh"]
    assert list(store.keys("t/")) == []


def test_without_a_bucket_the_farm_stores_in_its_data_folder(tmp_path: Path) -> None:
    settings = Settings(FLUXFARM_DATA_DIR=tmp_path, S3_BUCKET="", FLUXFARM_PUBLIC_URL="https://farm.example/")
    store, key = make_store(settings), reference_key(TENANT)
    store.put(key, b"x", "image/png")
    assert files(tmp_path) == ["link.secret", f"objects/{key}"]
    url = store.presign(key, ttl=60, content_type="image/png", filename=None, inline=True)
    assert url.startswith(f"https://farm.example/objects/{key}?expires=")
