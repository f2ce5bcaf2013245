"""The dashboard's own forms and streams count as calls of the key; looking at pages does not."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.settings import Settings
from tests.api.test_limits import Clock

QUOTA = 3  #: calls a minute


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"rate_limit": QUOTA, "open_calls": 1}))


def test_forms_count_and_pages_do_not(browser: TestClient, app: FastAPI) -> None:
    app.state.farm.rates._clock = Clock()
    form = {"model": "fluxfarm/flux-2-klein-small", "prompt": "a fox", "size": "64x64"}
    for _ in range(QUOTA):
        assert browser.get("/dashboard/jobs").status_code == 200
        made = browser.post("/dashboard/playground", data=form)
        assert made.status_code == 303, made.text
        assert "ratelimit" in made.headers
    refused = browser.post("/dashboard/playground", data=form)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "50")
    assert "Wait until the minute is over" in refused.text
    assert browser.get("/dashboard/events").status_code == 429
    assert browser.get("/dashboard/campaigns/spring/events").status_code == 429
    assert browser.get("/dashboard/").status_code == 200
    assert not app.state.farm.open_calls._here
