"""`fluxfarm usage` and `fluxfarm providers` against a farm that has really sent jobs away."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from fluxfarm.cli import main
from fluxfarm.settings import Settings
from storage.database import Database
from tests.remote.office import DEV, listening
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub


def test_the_command_line_tells_what_was_spent_and_how_providers_did(
    settings: Settings,
    database: Database,
    api_key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(settings, database, api_key, FalStub(), ReplicateStub()) as (office, _):
        office.stubs["fal"].plan.append("failed-internal")
        assert office.render()["status"] == "SUCCESS"  # by the second provider
        assert office.render()["status"] == "SUCCESS"
        monkeypatch.setenv("FLUXFARM_URL", office.settings.public_url)
        monkeypatch.setenv("FLUXFARM_API_KEY", api_key)
        capsys.readouterr()

        assert main(["usage", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert Decimal(told["spent"]) == Decimal("0.024")
        assert {(one["name"], one["jobs"]) for one in told["byProvider"]} == {("fal", 1), ("replicate", 1)}
        assert main(["usage", "--days", "1"]) == 0
        shown = capsys.readouterr()
        assert "spent 0.024 USD, reserved 0" in shown.err
        assert [line.split()[:3] for line in shown.out.splitlines() if line.startswith(("provider", "campaign"))] == [
            ["provider", "fal", "0.012"],
            ["provider", "replicate", "0.012"],
            ["campaign", "-", "0.024"],
        ]

        assert main(["providers", "--json"]) == 0
        rows = {(one["provider"], one["model"]): one for one in json.loads(capsys.readouterr().out)["data"]}
        assert (rows["fal", DEV]["success"], rows["fal", DEV]["attempts"]) == (0.5, 2)
        assert main(["providers", "--window", "30d"]) == 0
        line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("fal") and DEV in one)
        assert "50.0%" in line
        assert "0.012" in line
        assert main(["providers", "--window", "7d"]) == 2
        assert "window" in capsys.readouterr().err
