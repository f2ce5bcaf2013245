"""The command line run in the test's own process, against a farm on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fluxfarm.cli import main
from tests.fluxfarm.stub_api import KEY, StubFarm


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """The one JSON value on stderr."""
        return json.loads(self.err)


class Shell:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        code = main(arguments)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubFarm]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLUXFARM_DATA_DIR", raising=False)
    with StubFarm().running() as stub:
        monkeypatch.setenv("FLUXFARM_URL", stub.url)
        monkeypatch.setenv("FLUXFARM_API_KEY", KEY)
        yield stub


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)
