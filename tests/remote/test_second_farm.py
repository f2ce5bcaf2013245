"""A farm may be the provider of another: OpenAI's client asks the first, which asks the second, which asks fal."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
from openai import OpenAI
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import select

from api.main import create_app
from fluxfarm.jobs import JobState
from fluxfarm.scopes import Scope
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Job
from storage.repository import tenants
from tests.conftest import migrate
from tests.making import own_database
from tests.money import assert_balanced
from tests.remote.office import DEV, Office, on_the_wire, opened
from tests.stubs.fal import FalStub


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The farm's API on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener, on_the_wire(create_app(settings), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def working(office: Office) -> Iterator[None]:
    """The office's worker takes what comes, as it would by tickets."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            with office.database.transaction() as session:
                waiting = session.scalars(select(Job.uuid).where(Job.status == JobState.QUEUED)).all()
            for uuid in waiting:
                office.work(str(uuid))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


@pytest.fixture
def second_database(postgres_url: str) -> Iterator[Database]:
    with own_database(postgres_url) as made:
        migrate(made)
        yield made


def test_a_farm_is_the_provider_of_another(
    settings: Settings, database: Database, api_key: str, second_database: Database, valkey_url: str
) -> None:
    with second_database.transaction() as session:
        theirs = tenants.create_key(session, tenants.ensure_tenant(session, "first farm").id, "key", Scope)[1]
    second = settings.model_copy(
        update={
            "database_url": second_database.url,
            "redis_url": SecretStr(f"{valkey_url.removesuffix('/0')}/1"),
            "data_dir": settings.data_dir / "second",
        }
    )
    fal = FalStub()
    with (
        opened(second, second_database, theirs, fal) as far,
        served(far.settings) as far_url,
        working(far),
        opened(
            settings, database, api_key, openai_endpoints=SecretStr(f"studio={far_url}/v1={theirs}|{DEV}|price=0.05")
        ) as near,
        served(near.settings) as near_url,
        working(near),
        OpenAI(base_url=f"{near_url}/v1", api_key=api_key, timeout=60, max_retries=0) as client,
    ):
        reply = client.images.generate(
            model=DEV,
            prompt="a red fox",
            size="512x512",
            response_format="b64_json",
            output_format="png",
            extra_body={"seed": 7},
        )
        assert reply.data is not None
        with Image.open(io.BytesIO(base64.b64decode(reply.data[0].b64_json or ""))) as picture:
            assert (picture.format, picture.size) == ("PNG", (512, 512))
        record = near.api.get("/v1/jobs").json()["data"][0]
        assert (record["attempts"][0]["provider"], record["attempts"][0]["seeds"]) == ("studio", [7])
        assert Decimal(record["cost"]) == Decimal("0.012")  # what the second farm charged, not 0.05
        assert far.api.get("/v1/jobs").json()["data"][0]["attempts"][0]["provider"] == "fal"
    assert (fal.accepted, fal.last.seed) == (1, 7)
    assert_balanced(database)
    assert_balanced(second_database)
