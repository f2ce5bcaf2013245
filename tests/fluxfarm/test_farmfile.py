from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

from fluxfarm import farmfile, processes
from fluxfarm.farmfile import PIDS, SUPERVISOR, RunningFarm
from fluxfarm.processes import Identity

FARM = RunningFarm(
    url="http://127.0.0.1:8000",
    api_key="ff_live_secret",
    flower_url="http://127.0.0.1:5555",
    flower_user="fluxfarm",
    flower_password="hush",
    pids={SUPERVISOR: 1, "api": 2},
)


def me() -> Identity:
    identity = processes.identify(os.getpid())
    assert identity is not None
    return identity


def test_what_is_written_is_read_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    farmfile.write(tmp_path, FARM)
    assert farmfile.read(tmp_path) == FARM
    assert stat.S_IMODE((tmp_path / "farm.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["farm.json"]


def test_writing_again_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    (tmp_path / "farm.json").write_text("{}")
    (tmp_path / "farm.json").chmod(0o644)
    (tmp_path / "farm.json.new").write_text("half of an earlier try")
    farmfile.write(tmp_path, FARM)
    assert stat.S_IMODE((tmp_path / "farm.json").stat().st_mode) == 0o600
    assert farmfile.read(tmp_path) == FARM


def test_secrets_stay_out_of_the_text_form() -> None:
    assert "ff_live_secret" not in repr(FARM)
    assert "hush" not in repr(FARM)


def test_a_missing_or_broken_file_is_no_farm(tmp_path: Path) -> None:
    assert farmfile.read(tmp_path) is None
    for text in ("", "[]", '{"url": 1}', '{"url": "u", "pids": 3}', "\udcff".encode("utf-8", "surrogateescape").hex()):
        (tmp_path / "farm.json").write_text(text)
        assert farmfile.read(tmp_path) is None


def test_a_farm_is_found_only_while_its_supervisor_lives(tmp_path: Path) -> None:
    farmfile.write(tmp_path, FARM)
    assert farmfile.find(tmp_path) is None  # nobody is known to run it
    processes.remember(tmp_path / PIDS, {SUPERVISOR: me()})
    assert farmfile.find(tmp_path) == FARM
    processes.remember(tmp_path / PIDS, {SUPERVISOR: Identity(os.getpid(), "another start")})
    assert farmfile.find(tmp_path) is None  # the pid was given to another process


def test_a_removed_farm_is_gone_and_removing_twice_is_fine(tmp_path: Path) -> None:
    farmfile.write(tmp_path, FARM)
    farmfile.remove(tmp_path)
    farmfile.remove(tmp_path)
    assert farmfile.read(tmp_path) is None


def test_a_process_is_known_by_pid_and_start() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        identity = processes.identify(child.pid)
        assert identity is not None
        assert identity.is_alive()
        child.kill()
        child.wait()
        assert not identity.is_alive()
        assert processes.identify(child.pid) is None


def test_a_zombie_does_not_count_as_alive() -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = processes.identify(child.pid)
    assert identity is not None
    os.kill(child.pid, 9)
    while identity.is_alive():  # it is not waited for, so it stays a zombie until the end of the test
        pass
    assert child.wait() == -9


def test_a_stranger_with_a_recycled_pid_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert processes.end_stranger(Identity(child.pid, "another start"), ((signal.SIGKILL, 1.0),))
        assert child.poll() is None
        child.kill()
