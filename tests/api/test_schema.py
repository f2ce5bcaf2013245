"""schemathesis over the whole description of the API: every check, also of calls that follow from each other.

What is left out, and why, stands in ``schemathesis.toml`` and ``schemathesis_hooks.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI

from api.main import create_app
from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.samples import Hand, working
from tests.conftest import ROOT

SEED = 20
CONFIG = Path(__file__).with_name("schemathesis.toml")


def resolver(_host: str, _port: int) -> Sequence[str]:
    return ["93.184.215.14"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    changes = {"rate_limit": 0, "longest_wait": 5}
    return create_app(settings.model_copy(update=changes), outlet=Outlet(20_000, 5.0, resolver=resolver))


@pytest.mark.timeout(280)  # 40 seconds on two quiet cores
def test_what_is_described_is_what_happens(
    app: FastAPI, server: str, api_key: str, database: Database, hand: Hand, tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", "openapi.json"]
    environment = {**os.environ, "FARM_KEY": api_key, "PYTHONPATH": str(ROOT)}
    with working(database, hand):
        told = subprocess.run(
            [*command, "--url", server, "--seed", str(SEED), "--no-color"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=270,
        )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Stateful" in told.stdout
