from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from fluxfarm import doctor, embedded, farmfile, processes
from fluxfarm.doctor import Finding, check
from fluxfarm.farmfile import PIDS, SUPERVISOR, RunningFarm
from fluxfarm.settings import Settings
from fluxfarm.sources import parse_sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def quiet(tmp_path: Path, **more: object) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "port": 0, "flower_port": 0, **more})


def only(findings: list[Finding], name: str) -> Finding:
    [found] = [one for one in findings if one.name == name]
    return found


def weights(settings: Settings) -> Finding:
    [source] = settings.models
    return doctor._weights(settings, source)


def test_a_whole_check_covers_every_part_shows_no_secret_and_writes_nothing(tmp_path: Path, listener: int) -> None:
    settings = quiet(
        tmp_path,
        database_url=SecretStr(f"postgresql://me:hush-1@127.0.0.1:{listener}/db"),
        redis_url=SecretStr("redis://:hush-2@127.0.0.1:1/0"),
        s3_bucket="results",
        s3_endpoint_url=f"http://127.0.0.1:{listener}",
        s3_secret_access_key=SecretStr("hush-3"),
    )
    findings = check(settings)
    assert {one.name for one in findings} >= {
        *("python", "rendering", "gpu", "disk", "database", "broker", "objects", "port", "flower port"),
        *("user", "open files", "farm", "model fluxfarm/flux-2-small"),
    }
    assert "hush" not in repr(findings)
    assert all(one.advice for one in findings if one.status != "ok")
    assert only(findings, "database") == Finding("database", "ok", f"127.0.0.1:{listener} answers")
    assert only(findings, "objects").status == "ok"
    broker = only(findings, "broker")
    assert (broker.status, broker.advice) == ("fail", "Start it, or correct REDIS_URL.")
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_a_failure_that_names_its_setting(tmp_path: Path, listener: int) -> None:
    findings = list(doctor._ports(quiet(tmp_path, port=listener)))
    assert findings[0].status == "fail"
    assert findings[0].what == f"Port {listener} is taken"
    assert "FLUXFARM_PORT" in findings[0].advice
    assert findings[1].status == "ok"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"safety": "ok"}),
        ({"safety": "block"}, {"safety": "warn"}),
        ({"deny_file": "words"}, {"safety": "warn"}),
        ({"safety": "log", "deny_file": "words"}, {"safety": "ok"}),
        ({"safety": "log", "deny_file": "broken"}, {"deny list": "fail", "safety": "ok"}),
        ({"safety": "log", "deny_file": "nowhere"}, {"deny list": "fail", "safety": "ok"}),
        ({"safety": "log", "classifier": "nowhere"}, {"classifier": "fail", "safety": "ok"}),
    ],
)
def test_safety_that_looks_at_nothing_is_told(tmp_path: Path, changes: dict[str, str], told: dict[str, str]) -> None:
    (tmp_path / "words").write_text("kernkraft\n")
    (tmp_path / "broken").write_text("/(/\n")
    named = {name: value if name == "safety" else tmp_path / value for name, value in changes.items()}
    findings = list(doctor._safety(quiet(tmp_path, **named)))
    assert {one.name: one.status for one in findings} == told
    assert all(one.advice for one in findings if one.status != "ok")


def test_a_second_broker_and_a_standby_are_looked_for_where_they_are_named(tmp_path: Path, listener: int) -> None:
    settings = quiet(
        tmp_path,
        broker_url=SecretStr(f"amqp://me:hush@127.0.0.1:{listener}/farm"),
        replica_url=SecretStr("postgresql://me:hush@127.0.0.1:1/farm"),
    )
    found = {one.name: one for one in doctor._services(settings)}
    assert (found["tickets"].status, found["replica"].status) == ("ok", "fail")
    assert found["replica"].advice == "Start it, or correct FLUXFARM_REPLICA_URL."
    assert "hush" not in repr(found)


def test_ports_of_the_farm_that_runs_here_are_no_failure(tmp_path: Path, listener: int) -> None:
    settings = quiet(tmp_path, port=listener)
    settings.data_dir.mkdir()
    farm = RunningFarm("http://127.0.0.1:1", "key", "http://127.0.0.1:2", "user", "hush", {SUPERVISOR: os.getpid()})
    identity = processes.identify(os.getpid())
    assert identity is not None
    processes.remember(settings.data_dir / PIDS, {SUPERVISOR: identity})
    farmfile.write(settings.data_dir, farm)
    assert [one.status for one in doctor._ports(settings)] == ["ok", "ok"]
    assert doctor._farm(settings).what == f"runs at http://127.0.0.1:1 (pid {os.getpid()})"


def test_weights_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    settings = quiet(tmp_path, models=parse_sources(f"black-forest-labs/FLUX.2-klein-4B={folder}"))
    assert weights(settings).what == f"{folder} does not exist"
    folder.mkdir()
    assert weights(settings).what == f"{folder} has no model_index.json"
    (folder / "model_index.json").touch()
    assert weights(settings).status == "ok"


def test_weights_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    models = parse_sources(f"black-forest-labs/FLUX.2-klein-4B=black-forest-labs/FLUX.2-klein-4B@{COMMIT}")
    absent = weights(quiet(tmp_path, models=models))
    assert absent.status == "fail"
    assert f"hf download black-forest-labs/FLUX.2-klein-4B --revision {COMMIT}" in absent.advice
    assert weights(quiet(tmp_path, models=models, allow_downloads=True)).status == "warn"
    snapshot = tmp_path / "hub" / "models--black-forest-labs--FLUX.2-klein-4B" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").touch()
    assert weights(quiet(tmp_path, models=models)).status == "ok"


def test_a_model_that_nobody_knows_and_one_without_a_place(tmp_path: Path) -> None:
    assert weights(quiet(tmp_path, models=parse_sources("no-such-model"))).advice == "Correct FLUXFARM_MODELS."
    nowhere = weights(quiet(tmp_path, models=parse_sources("black-forest-labs/FLUX.2-dev")))
    assert nowhere.status == "fail"
    assert "=/folder" in nowhere.advice


@pytest.mark.parametrize(
    ("device", "gpus", "mps", "status"),
    [
        ("auto", [("NVIDIA H200", 100 * doctor.GIB, 139 * doctor.GIB)], False, "ok"),
        ("cpu", [("NVIDIA H200", 100 * doctor.GIB, 139 * doctor.GIB)], False, "warn"),
        ("auto", [], True, "ok"),
        ("auto", [], False, "warn"),
        ("cuda:1", [], False, "fail"),
    ],
)
def test_the_gpu(tmp_path: Path, device: str, gpus: list[tuple[str, int, int]], *, mps: bool, status: str) -> None:
    found = doctor._device(quiet(tmp_path, device=device), "2.13.0", gpus, mps=mps)
    assert found.status == status
    assert bool(found.advice) == (status != "ok")
    assert ("100 of 139 GiB free" in found.what) == bool(gpus)


def test_missing_embedded_servers_are_a_failure_only_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: int
) -> None:
    monkeypatch.setattr(embedded, "package_folder", lambda _: None)
    settings = quiet(tmp_path, redis_url=SecretStr(f"redis://127.0.0.1:{listener}/0"))
    findings = list(doctor._services(settings))
    assert [one.status for one in findings] == ["fail", "ok", "ok"]
    assert "pip install 'fluxfarm[embedded]'" in findings[0].advice
    assert "DATABASE_URL" in findings[0].advice


def test_a_database_behind_a_unix_socket(tmp_path: Path, postgres_url: str) -> None:
    answering = next(iter(doctor._services(quiet(tmp_path, database_url=SecretStr(postgres_url)))))
    assert answering.status == "ok"
    nowhere = SecretStr(f"postgresql://postgres@/postgres?host={tmp_path}")
    silent = next(iter(doctor._services(quiet(tmp_path, database_url=nowhere))))
    assert (silent.status, silent.advice) == ("fail", "Start it, or correct DATABASE_URL.")


@pytest.mark.parametrize("url", ["redis://host:port/0", "redis://[::1/0", "redis://127.0.0.1:99999/0"])
def test_a_url_that_is_none_is_a_failure_and_no_crash(tmp_path: Path, url: str) -> None:
    broker = list(doctor._services(quiet(tmp_path, redis_url=SecretStr(url))))[1]
    assert broker == Finding("broker", "fail", "REDIS_URL is not a URL", "Correct REDIS_URL.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert doctor._disk(quiet(tmp_path, data_dir=tmp_path / "closed" / "data")).status == "fail"


def test_a_data_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor._disk(quiet(tmp_path, data_dir=tmp_path / "file" / "data")).status == "fail"
