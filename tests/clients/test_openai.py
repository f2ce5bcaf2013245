"""The official Python client of OpenAI, with nothing changed but its base URL and key."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.making import MODEL

PYTHON = "openai (Python)"


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key=place.key) as made:
        yield made


@client_call(PYTHON, "models.list()", "GET /v1/models")
def test_models_are_listed(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert found[MODEL].object == "model"
