"""Previews out of the denoising steps: true to the picture, without a trace in it, and never worth a render."""

from __future__ import annotations

import asyncio
import io
import socket
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from fluxfarm.settings import Settings
from storage.database import Database
from storage.previews import Preview, Previews
from storage.records import Job, Tenant
from tests.making import make_job, make_request, must_claim
from tests.workers.pipeline_drawings import drawing, quietly
from workers.pipeline import Pipeline
from workers.pipeline_previews import Previewer, preview_steps
from workers.previews import PreviewSender

Shown = list[tuple[int, int, int, Image.Image]]


@pytest.mark.parametrize(
    ("steps", "count", "after"),
    [(28, 3, (7, 14, 21)), (4, 3, (1, 2, 3)), (4, 1, (2,)), (2, 3, (1,)), (1, 3, ()), (8, 0, ())],
)
def test_when_they_are_taken(steps: int, count: int, after: tuple[int, ...]) -> None:
    assert preview_steps(steps, count) == after


@pytest.mark.parametrize("shape", ["dev", "klein"])
def test_they_leave_no_trace_in_the_picture(request: pytest.FixtureRequest, shape: str) -> None:
    pipeline: Pipeline = request.getfixturevalue(shape)
    asked = {"steps": 4, "seeds": (1, 2)}
    plain = pipeline.draw(drawing(**asked), quietly)
    shown: Shown = []
    watched = pipeline.draw(drawing(**asked, previews=2), quietly, lambda *one: shown.append(one))
    assert [image.tobytes() for image in watched] == [image.tobytes() for image in plain]
    assert [one[:3] for one in shown] == [(0, 0, 1), (0, 1, 3), (1, 0, 1), (1, 1, 3)]
    assert len({one[3].tobytes() for one in shown}) == 4


def test_after_the_last_step_the_estimate_is_the_picture(klein: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it nobody can say what is right; there x - sigma * v is what the scheduler makes of it as well."""
    monkeypatch.setattr("workers.pipeline_batch.preview_steps", lambda steps, _count: (steps,))
    shown: Shown = []
    (picture,) = klein.draw(drawing(steps=3, previews=1), quietly, lambda *one: shown.append(one))
    ((_, _, _, preview),) = shown
    worst = max(abs(a - b) for a, b in zip(preview.tobytes(), picture.tobytes(), strict=True))
    assert worst <= 1


def test_a_large_one_is_small(klein: Pipeline) -> None:
    shown: Shown = []
    klein.draw(
        drawing(width=512, height=256, steps=2, guidance=1.0, previews=1), quietly, lambda *one: shown.append(one)
    )
    assert shown[0][3].size == (256, 128)


def test_whatever_goes_wrong_the_picture_comes(klein: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(*_: object) -> None:
        calls.append(1)
        raise ValueError

    calls: list[int] = []
    assert len(klein.draw(drawing(steps=4, previews=3), quietly, show)) == 1
    assert len(calls) == 1
    monkeypatch.setattr(Previewer, "look", lambda *_: 1 / 0)
    assert len(klein.draw(drawing(steps=4, previews=3), quietly, show)) == 1


@pytest.fixture
def asked(database: Database, tenant: Tenant) -> Job:
    return make_job(database, tenant, request=make_request(previews=2, output_format="png"))


def read(previews: Previews, job: Job) -> list[Preview] | None:
    async def look() -> list[Preview] | None:
        reader = previews.reader(job.uuid)
        found = await reader.read(0.2)
        await reader.close()
        return found

    return asyncio.run(look())


def test_they_go_through_valkey_and_expire(settings: Settings, database: Database, asked: Job) -> None:
    sender = PreviewSender(Previews(settings.redis_url))
    show = sender.for_job(must_claim(database, asked.uuid))
    assert show is not None
    show(0, 1, 3, Image.new("RGB", (32, 16), "red"))
    sender.close()
    previews = Previews(settings.redis_url)
    found = read(previews, asked)
    assert found is not None
    assert [(one.attempt, one.n, one.index, one.step, one.content_type) for one in found] == [(1, 0, 1, 3, "image/png")]
    with Image.open(io.BytesIO(found[0].body)) as image:
        assert image.size == (32, 16)
    redis: Any = previews._redis
    assert 0 < redis.ttl(f"preview:{asked.uuid}") <= 120
    previews.forget(asked.uuid)
    assert read(previews, asked) == []
    previews.close()


def test_a_job_that_asked_for_none_has_no_sender(settings: Settings, database: Database, tenant: Tenant) -> None:
    sender = PreviewSender(Previews(settings.redis_url))
    assert sender.for_job(must_claim(database, make_job(database, tenant).uuid)) is None
    sender.close()


def test_a_dead_channel_is_nobodys_trouble(database: Database, asked: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        for port in (silent.getsockname()[1], 1):
            previews = Previews(SecretStr(f"redis://127.0.0.1:{port}/0"))
            sender = PreviewSender(previews)
            claim = must_claim(database, asked.uuid) if port != 1 else None
            if claim is not None and (show := sender.for_job(claim)) is not None:
                for index in range(20):
                    show(0, index, index + 1, Image.new("RGB", (16, 16)))
            previews.forget(asked.uuid)
            assert read(previews, asked) is None
            sender.close()
