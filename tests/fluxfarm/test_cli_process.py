"""The command line as a process: Ctrl-C, a terminal, a broken pipe, and what it imports."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fluxfarm.cli_output import ExitCode
from fluxfarm.jobs import JobState
from tests.fluxfarm.stub_api import Call, StubFarm, picture

ENTRY = "import sys; from fluxfarm.cli import main; sys.exit(main())"


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "80", "TERM": "xterm"}
    return subprocess.Popen([sys.executable, "-c", ENTRY, *arguments], env=environment, **options)


@pytest.mark.parametrize("machine", [False, True])
def test_ctrl_c_cancels_the_job_and_ends_with_130(farm: StubFarm, *, machine: bool) -> None:
    farm.outcome = None
    extra = ("--json",) if machine else ()
    with start("render", "x", *extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert farm.wait_for("GET", "/events")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
    assert process.returncode == ExitCode.INTERRUPTED
    assert [job.status for job in farm.jobs.values()] == [JobState.CANCELED]
    assert b"Traceback" not in err
    if machine:
        assert json.loads(out)["aiRecord"]["status"] == "CANCELED"
        assert err == b""
    else:
        assert b"CANCELED" in err


def test_ctrl_c_while_the_job_is_handed_in_cancels_it_too(farm: StubFarm) -> None:
    farm.outcome = None
    running: list[subprocess.Popen[bytes]] = []

    def interrupt(call: Call) -> None:
        if (call.method, call.path) == ("POST", "/v1/jobs"):
            running[0].send_signal(signal.SIGINT)
            time.sleep(0.2)

    farm.meddle = interrupt
    with start("render", "x", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        running.append(process)
        _, err = process.communicate(timeout=15)
    assert process.returncode == ExitCode.INTERRUPTED
    assert [job.status for job in farm.jobs.values()] == [JobState.CANCELED]
    assert b"Traceback" not in err


def test_a_terminal_gets_a_live_bar_and_a_table(farm: StubFarm, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with start("render", "x", "-o", "out.webp", stdout=theirs, stderr=theirs, stdin=theirs) as process:
            assert process.wait(timeout=15) == 0
        with start("models", stdout=theirs, stderr=theirs, stdin=theirs) as process:
            assert process.wait(timeout=15) == 0
        shown = os.read(ours, 2**16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "━" in shown
    assert "8/8" in shown
    assert "SUCCESS" in shown
    assert "fluxfarm/flux-2-klein-small" in shown
    assert (tmp_path / "out.webp").read_bytes() == picture(0)
    assert farm.jobs


def test_a_reader_that_goes_away_causes_no_traceback(farm: StubFarm) -> None:
    for _ in range(300):
        farm.add_job({"prompt": "y" * 1000})
    with start("list", "--limit", "300", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_the_command_line_needs_only_what_the_wheel_holds() -> None:
    code = (
        "import sys, fluxfarm.cli; "
        "heavy = ('torch', 'diffusers', 'transformers', 'sqlalchemy', 'celery', 'fastapi', 'boto3', "
        "'storage', 'api', 'workers', 'psycopg'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
