"""Settings: read from the environment, by their documented names, without showing a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from fluxfarm.errors import InvalidField
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource

NAMES = [field.alias or "" for field in Settings.model_fields.values()]
OUTSIDE = ("AWS_", "C2PA_", "DATABASE_URL", "REDIS_URL", "S3_")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_every_setting_has_a_name_of_ours_or_a_usual_one_and_a_description() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for name, field in Settings.model_fields.items():
        assert field.alias is not None
        assert field.alias.startswith(("FLUXFARM_", *OUTSIDE)), name
        assert (field.description or "").endswith("."), name


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.port, settings.flower_port, settings.data_dir) == (8000, 5555, Path(".fluxfarm"))
    assert settings.base_url == "http://127.0.0.1:8000"
    assert settings.database_url.get_secret_value() == settings.s3_bucket == ""
    assert [source.slug for source in settings.models] == ["fluxfarm/flux-2-klein-small", "fluxfarm/flux-2-small"]
    assert settings.lease > 2 * settings.lease_renewal


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXFARM_PORT", "9000")
    monkeypatch.setenv("FLUXFARM_MODELS", "flux-2-dev=/weights/dev, flux-2-small")
    monkeypatch.setenv("FLUXFARM_PUBLIC_URL", "https://farm.example/")
    monkeypatch.setenv("FLUXFARM_LOG_JSON", "true")
    settings = Settings()
    assert settings.port == 9000
    assert settings.models == (ModelSource("flux-2-dev", folder=Path("/weights/dev")), ModelSource("flux-2-small"))
    assert settings.base_url == "https://farm.example"
    assert settings.log_json


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUXFARM_PORT", "65536"),
        ("FLUXFARM_PORT", "x"),
        ("FLUXFARM_LINK_TTL", "604801"),
        ("FLUXFARM_LINK_TTL", "0"),
        ("FLUXFARM_SLOTS", "0"),
        ("FLUXFARM_LEASE", "-1"),
        ("FLUXFARM_LEASE", "nan"),
        ("FLUXFARM_DTYPE", "int8"),
        ("FLUXFARM_LOG_LEVEL", "LOUD"),
        ("S3_CHECKSUMS", "never"),
        ("FLUXFARM_MAX_ATTEMPTS", "21"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_a_model_without_a_pinned_revision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXFARM_MODELS", "flux-2-dev=black-forest-labs/FLUX.2-dev")
    with pytest.raises(InvalidField, match="FLUXFARM_MODELS"):
        Settings()


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [field.alias or "" for field in Settings.model_fields.values() if field.annotation is SecretStr]
    assert {"DATABASE_URL", "FLUXFARM_API_KEY", "S3_SECRET_ACCESS_KEY", "FLUXFARM_LINK_SECRET"} <= set(secrets)
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    settings = Settings()
    assert settings.api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("FLUXFARM_PORT", "hunter2")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


def test_settings_are_frozen_and_can_be_made_by_name(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0)
    assert settings.data_dir == tmp_path
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
