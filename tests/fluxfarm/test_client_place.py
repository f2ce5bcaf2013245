"""Where the client finds a farm and its key, and what it refuses to take for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxfarm import errors, farmfile, processes
from fluxfarm.client import Client
from fluxfarm.client_place import locate, read_settings
from fluxfarm.settings import Settings
from tests.fluxfarm.stub_api import KEY

SETTINGS = ("FLUXFARM_URL", "FLUXFARM_API_KEY", "FLUXFARM_DATA_DIR", "FLUXFARM_PORT")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return Settings(data_dir=tmp_path)


def _run_farm(data_dir: Path, url: str) -> None:
    identity = processes.identify(os.getpid())
    assert identity is not None
    processes.remember(data_dir / farmfile.PIDS, {farmfile.SUPERVISOR: identity})
    farmfile.write(data_dir, farmfile.RunningFarm(url, KEY, "", "", "", {}))


def test_arguments_win_over_the_environment_and_that_over_the_running_farm(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.Unavailable, match="fluxfarm up"):
        locate(None, None, settings)
    _run_farm(tmp_path, "http://127.0.0.1:1234")
    assert locate(None, None, settings) == ("http://127.0.0.1:1234", KEY)
    monkeypatch.setenv("FLUXFARM_URL", "https://far.example")
    monkeypatch.setenv("FLUXFARM_API_KEY", "env-key")
    monkeypatch.setenv("FLUXFARM_DATA_DIR", str(tmp_path))
    assert locate(None, None, read_settings()) == ("https://far.example", "env-key")
    assert locate("http://arg", "arg-key", read_settings()) == ("http://arg", "arg-key")


def test_the_running_farms_key_goes_to_that_farm_only(settings: Settings, tmp_path: Path) -> None:
    _run_farm(tmp_path, "http://127.0.0.1:1234")
    assert locate("http://127.0.0.1:1234/", None, settings)[1] == KEY
    assert locate("http://127.0.0.1:12345", None, settings)[1] == ""
    assert locate("https://far.example", None, settings)[1] == ""


@pytest.mark.parametrize(
    "url", ["farm", "ftp://farm", "http://", "http://u:p@farm", "http://farm?x=1", "http://farm#x", "http://a\nb"]
)
def test_what_is_no_url_of_a_farm_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        Client(url, KEY)
    assert caught.value.param == "url"


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown() -> None:
    for key in ("ff_live_ä", "a b", "a\nb"):
        with pytest.raises(errors.Unauthorized) as caught:
            Client("http://127.0.0.1:1", key)
        assert key not in caught.value.message


def test_a_setting_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXFARM_PORT", "ninety")
    with pytest.raises(errors.InvalidField, match="FLUXFARM_PORT"):
        read_settings()
