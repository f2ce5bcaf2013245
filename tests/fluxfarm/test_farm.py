from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from redis import Redis

from fluxfarm import farmfile, processes
from fluxfarm.farmfile import PIDS, SUPERVISOR
from fluxfarm.processes import Identity
from fluxfarm.scopes import Scope
from storage.database import Database

ROOT = Path(__file__).parents[2]
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux only")
ELSEWHERE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Up:
    """One ``fluxfarm up`` in a process of its own, with stand-ins for its parts."""

    def __init__(self, folder: Path, parts: str, **env: str) -> None:
        self.data_dir = folder / ".fluxfarm"
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        told = {"FARM_PARTS": parts, "FLUXFARM_PORT": "0", "FLUXFARM_FLOWER_PORT": "0", "PYTHONPATH": str(ROOT)}
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("stub_farm.py"))],
                cwd=folder,  # the data folder is the default: .fluxfarm of the folder that the caller is in
                env={"PATH": os.environ["PATH"], **told, **env},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said()
        return line

    def farm(self) -> farmfile.RunningFarm:
        found = farmfile.find(self.data_dir)
        assert found is not None
        return found

    def identities(self) -> dict[str, Identity]:
        return processes.recall(self.data_dir / PIDS)

    def said(self) -> str:
        return self.errors.read_text()

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


StartFarm = Callable[..., Up]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: under root pytest closes its own folder to other users again and again.
    path = Path(tempfile.mkdtemp(prefix="ff-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(folder: Path) -> Iterator[StartFarm]:
    started: list[Up] = []

    def begin(parts: str, **env: str) -> Up:
        started.append(Up(folder, parts, **env))
        return started[-1]

    yield begin
    for up in started:
        if up.process.poll() is None:
            up.stop()
        assert up.process.stdout is not None
        up.process.stdout.close()


def test_a_farm_with_its_own_servers_says_one_line_writes_its_file_and_leaves_nothing(start: StartFarm) -> None:
    up = start("web,where", FARM_COMMANDS="real")
    line = up.ready()
    farm = up.farm()
    assert line == f"Fluxfarm is ready: {farm.url} (API key in .fluxfarm/farm.json, Flower {farm.flower_url})\n"
    assert httpx.get(farm.url, trust_env=False).content
    assert farm.api_key.startswith("ff_live_")
    assert set(farm.pids) == {SUPERVISOR, "postgres", "valkey", "web", "where"}
    assert farm.pids[SUPERVISOR] == up.process.pid
    assert stat.S_IMODE((up.data_dir / "farm.json").stat().st_mode) == 0o600
    assert eventually(lambda: up.log("where") == f"{ROOT} {up.data_dir}\n")  # in the checkout, with the caller's folder
    started = up.identities()
    assert len(started) == 5

    assert up.stop(signal.SIGINT) == 0
    assert up.said() == "" or os.geteuid() == 0
    assert not any(identity.is_alive() for identity in started.values())
    assert not (up.data_dir / "farm.json").exists()
    assert not (up.data_dir / PIDS).exists()

    again = start("web", FARM_COMMANDS="real")
    again.ready()
    assert again.farm().api_key != farm.api_key  # each start has its own key
    assert again.stop() == 0


def test_an_embedded_server_that_dies_comes_back_at_the_same_place(start: StartFarm) -> None:
    up = start("sleeper,where", FARM_COMMANDS="stub")
    up.ready()
    before = up.farm().pids
    for name in ("postgres", "valkey"):
        os.kill(before[name], signal.SIGKILL)
    assert eventually(lambda: up.said().count("runs again") == 2), up.said()
    after = up.farm().pids
    assert after["sleeper"] == before["sleeper"]
    assert {after["postgres"], after["valkey"]}.isdisjoint(before.values())
    environ = Path(f"/proc/{after['where']}/environ")
    if environ.exists():  # what the parts were told still works
        told = dict(pair.split("=", 1) for pair in environ.read_text().split("\0") if "=" in pair)
        with Redis.from_url(told["REDIS_URL"]) as redis:
            assert redis.ping()
        psycopg.connect(told["DATABASE_URL"]).close()


def test_a_part_that_dies_is_started_again_and_the_file_names_its_new_pid(start: StartFarm) -> None:
    up = start("sleeper,parent", **ELSEWHERE)
    up.ready()
    assert eventually(lambda: up.log("parent") != "")
    left_behind = processes.identify(int(up.log("parent")))
    assert left_behind is not None
    before = up.farm().pids
    os.kill(before["parent"], signal.SIGKILL)
    assert eventually(lambda: "parent runs again (restart 1)." in up.said()), up.said()
    assert up.farm().pids["parent"] != before["parent"]
    assert up.farm().pids["sleeper"] == before["sleeper"]
    assert "parent was ended by SIGKILL; it starts again in 0.5 s." in up.said()
    assert not left_behind.is_alive()  # what the dead one had started


def test_stopping_waits_for_a_part_that_finishes_its_work(start: StartFarm) -> None:
    up = start("slow,sleeper", **ELSEWHERE)
    up.ready()
    assert eventually(lambda: "on duty" in up.log("slow"))
    assert up.stop(signal.SIGTERM) == 0
    assert "finished" in up.log("slow")


def test_a_second_ctrl_c_ends_all_at_once(start: StartFarm) -> None:
    up = start("deaf")
    up.ready()
    assert eventually(lambda: "on duty" in up.log("deaf"))
    started = up.identities()
    assert set(started) == {SUPERVISOR, "postgres", "valkey", "deaf"}
    up.process.send_signal(signal.SIGINT)
    assert eventually(lambda: not (up.data_dir / "farm.json").exists())
    assert started["deaf"].is_alive()
    assert up.stop(signal.SIGINT) == 130
    assert not any(identity.is_alive() for identity in started.values())


def test_a_farm_that_still_starts_can_be_stopped(start: StartFarm) -> None:
    up = start("never")
    log = up.data_dir / "logs" / "never.log"
    assert eventually(lambda: log.exists() and "on duty" in log.read_text())
    started = up.identities()
    assert set(started) == {SUPERVISOR, "postgres", "valkey", "never"}
    assert farmfile.find(up.data_dir) is None  # it is not ready
    assert up.stop(signal.SIGTERM) == 0
    assert "finished" in up.log("never")
    assert not any(identity.is_alive() for identity in started.values())


def test_a_part_that_is_killed_while_it_starts_has_a_second_try(start: StartFarm) -> None:
    up = start("never", **ELSEWHERE)
    log = up.data_dir / "logs" / "never.log"
    for again in (1, 2):
        assert eventually(lambda: log.exists() and log.read_text().count("on duty") == again)  # noqa: B023
        assert eventually(lambda: "never" in up.identities())
        os.kill(up.identities()["never"].pid, signal.SIGKILL)
    assert up.process.wait(30) == 1
    assert up.said().count("never was ended by SIGKILL while starting; it starts again.") == 1
    assert "never was ended by SIGKILL while starting:\non duty" in up.said()


def test_a_part_that_cannot_start_ends_the_farm_with_its_last_words(start: StartFarm) -> None:
    up = start("sleeper,broken", **ELSEWHERE)
    assert up.process.wait(30) == 1
    assert "broken ended with exit code 1 while starting:\nthe reason why" in up.said()
    assert not (up.data_dir / PIDS).exists()
    assert "Traceback" not in up.said()


def test_a_migration_that_fails_ends_the_farm_with_its_reason_and_without_the_password(start: StartFarm) -> None:
    up = start("sleeper", FARM_COMMANDS="real", **{**ELSEWHERE, "DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/none"})
    assert up.process.wait(60) == 1
    assert "migrations failed (exit code 1)" in up.said()
    assert "hush" not in up.said()


def test_a_second_farm_in_the_same_folder_is_refused_and_told_which_one_runs(start: StartFarm) -> None:
    first = start("sleeper", **ELSEWHERE)
    first.ready()
    second = start("sleeper", **ELSEWHERE)
    assert second.process.wait(30) == 1
    assert f"{first.farm().url} (pid {first.process.pid})" in second.said()
    assert "FLUXFARM_DATA_DIR" in second.said()
    assert first.process.poll() is None
    assert first.stop() == 0


def test_two_farms_run_side_by_side(start: StartFarm, folder: Path) -> None:
    ups = [start("sleeper", **ELSEWHERE, FLUXFARM_DATA_DIR=str(folder / name)) for name in ("one", "two")]
    lines = [up.ready() for up in ups]
    assert f"API key in {folder}/one/farm.json" in lines[0]
    assert lines[0] != lines[1]
    assert [up.stop() for up in ups] == [0, 0]


@pytest.mark.parametrize("setting", ["FLUXFARM_PORT", "FLUXFARM_FLOWER_PORT"])
def test_a_taken_port_is_an_error_that_names_the_setting(start: StartFarm, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = start("sleeper", **ELSEWHERE, **{setting: str(port)})
        assert up.process.wait(30) == 1
    assert f"Port {port} is taken" in up.said()
    assert setting in up.said()


def test_an_unusable_data_folder_is_an_error_that_names_the_setting(start: StartFarm, folder: Path) -> None:
    (folder / "file").touch()
    up = start("sleeper", **ELSEWHERE, FLUXFARM_DATA_DIR=str(folder / "file"))
    assert up.process.wait(30) == 1
    assert "set FLUXFARM_DATA_DIR" in up.said()


@LINUX_ONLY
def test_after_kill_9_everything_is_gone_and_the_next_farm_starts(start: StartFarm) -> None:
    first = start("deaf")
    first.ready()
    started = first.identities()
    first.process.kill()
    first.process.wait()
    assert len(started) == 4
    assert eventually(lambda: not any(identity.is_alive() for identity in started.values()))
    assert farmfile.read(first.data_dir) is not None  # the file stayed,
    assert farmfile.find(first.data_dir) is None  # but it counts no more
    second = start("sleeper")
    second.ready()
    assert set(second.farm().pids) == {SUPERVISOR, "postgres", "valkey", "sleeper"}
    assert second.stop() == 0


def test_what_a_killed_run_left_is_ended_but_never_a_stranger(start: StartFarm, folder: Path) -> None:
    data_dir = folder / ".fluxfarm"
    data_dir.mkdir(mode=0o700)
    with subprocess.Popen(["sleep", "600"]) as orphan, subprocess.Popen(["sleep", "600"]) as stranger:
        identity = processes.identify(orphan.pid)
        assert identity is not None
        processes.remember(data_dir / PIDS, {"worker": identity, "api": Identity(stranger.pid, "another start")})
        up = start("sleeper", **ELSEWHERE)
        up.ready()
        assert orphan.wait(5) == -signal.SIGTERM
        assert stranger.poll() is None
        stranger.kill()
    assert up.stop() == 0


def test_each_bootstrap_makes_a_key_and_revokes_the_one_before(database: Database) -> None:
    url = database.url.get_secret_value()
    env = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "storage.bootstrap", "--name=a farm of the tests"]
    replies = [
        json.loads(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    ]
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT k.id::text, k.scopes, k.revoked_at IS NULL, t.name"
            " FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.name = 'a farm of the tests'"
        ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert found[replies[1]["key_id"]] == ([*Scope], True, "default")
    assert found[replies[0]["key_id"]] == ([*Scope], False, "default")
