"""The compose file and the image, read as data; and the .env that both need."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluxfarm import dotenv
from fluxfarm.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: one for name, one in SERVICES.items() if str(one["image"]).startswith("fluxfarm/")}


def test_the_whole_farm_is_there() -> None:
    needed = {"postgres", "valkey", "objects", "migrate", "api", "scheduler", "webhooks", "flower"}
    assert needed | {"worker-local", "worker-gpu", "worker-remote", "prometheus", "grafana"} <= set(SERVICES)


@pytest.mark.parametrize("name", OWN)
def test_our_containers_have_no_more_rights_than_they_need(name: str) -> None:
    one = OWN[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]


def test_only_loopback_ports_are_published_and_no_image_floats() -> None:
    for name, one in SERVICES.items():
        assert all(str(port).startswith("127.0.0.1:") for port in one.get("ports", [])), name
        if name not in OWN:
            assert re.search(r":v?\d", one["image"]), name


def test_every_setting_that_is_named_exists() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    named = {name for one in OWN.values() for name in one["environment"] if name.startswith(("FLUXFARM_", "S3_"))}
    assert named - known == set()


def test_whoever_routes_or_calls_knows_every_provider() -> None:
    """An empty URL would replace the default one, so only what is empty by default is passed on."""
    settings = {
        str(field.alias)
        for name, field in Settings.model_fields.items()
        if name.startswith(("fal_", "replicate_", "bfl_", "cloudflare_", "onemin_", "openai_endpoints", "prices"))
        and not name.endswith("_url")
    }
    for name, one in OWN.items():
        passed = settings & set(one["environment"])
        assert passed == (settings if name in {"api", "scheduler", "worker-remote"} else set()), name
    assert {"DATABASE_URL", "FLUXFARM_SECRET_KEY"} <= set(OWN["worker-remote"]["environment"])


def test_what_an_operator_sets_reaches_every_part() -> None:
    """Variables that nobody has set come in empty or as the default, and then mean nothing."""
    text = (ROOT / "docker-compose.yml").read_text()
    passed = dict(re.findall(r"(FLUXFARM_\w+): \$\{\w+:-(.*)\}", text))
    for prefix in (
        "safety",
        "deny_file",
        "classifier",
        "loras",
        "broker_url",
        "replica_",
        "batch_size",
        "warm_sizes",
    ):
        for name, field in Settings.model_fields.items():
            if name.startswith(prefix):
                assert field.alias in passed, name
                assert all(field.alias in one["environment"] for one in OWN.values()), name
                given = Settings.model_validate({str(field.alias): passed[str(field.alias)]})
                assert getattr(given, name) == field.get_default(call_default_factory=True), name
    for name, one in OWN.items():
        assert "${FILES_FOLDER:-files}:/files:ro" in one["volumes"], name


def test_every_variable_without_a_default_is_written_by_make_env() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == set(dotenv.SECRETS)


def test_make_env_writes_secrets_once_and_for_the_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights" / "klein-4b"
    assert dotenv.main([str(weights)]) == 1
    weights.mkdir(parents=True)
    (weights / "model_index.json").write_text("{}")
    assert dotenv.main([str(weights)]) == 0
    written = (tmp_path / ".env").read_text()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in written.splitlines())
    assert values["FLUXFARM_MODELS"] == "black-forest-labs/flux-2-klein-4b=/models/klein-4b"
    assert values["MODELS_FOLDER"] == str(weights.parent)
    assert len({values[name] for name in dotenv.SECRETS}) == len(dotenv.SECRETS)
    assert all(len(values[name]) >= 32 for name in dotenv.SECRETS)
    assert dotenv.main([]) == 1
    assert (tmp_path / ".env").read_text() == written
    assert "not changed" in capsys.readouterr().err
