"""OpenAI's Batch API with the official client, against a real server; a hand renders."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from storage.database import Database
from storage.records import Job
from tests.api.samples import SMALL, Hand, picture, rows

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(request: pytest.FixtureRequest, server: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server + request.param, api_key=api_key, max_retries=0) as made:
        yield made


def line(custom_id: str, url: str = GENERATIONS, **body: Any) -> dict[str, Any]:
    asked = {"model": SMALL, "prompt": f"a {custom_id}", "size": "64x64", **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}


def upload(client: openai.OpenAI, *lines: Any) -> str:
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    return client.files.create(file=("calls.jsonl", text.encode()), purpose="batch").id


def start(client: openai.OpenAI, file_id: str, endpoint: Any = GENERATIONS, **more: Any) -> Batch:
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h", **more)


def waiting(database: Database) -> list[Job]:
    with database.transaction() as session:
        return [job for job in session.query(Job).order_by(Job.seq) if job.status == "QUEUED"]


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id is not None
    found = [json.loads(one) for one in client.files.content(file_id).text.splitlines()]
    return {one["custom_id"]: one["response"] for one in found}


def test_the_flow_of_the_official_client(client: openai.OpenAI, database: Database, hand: Hand) -> None:
    file_id = upload(client, line("fox"), line("owl", n=1, seed=5), line("bear", size="9x9"), "")
    batch = start(client, file_id, metadata={"team": "spring"})
    assert (batch.status, batch.endpoint, batch.metadata) == ("in_progress", GENERATIONS, {"team": "spring"})
    assert batch.request_counts is not None
    assert batch.request_counts.total == 3
    assert client.batches.list().data[0].id == batch.id
    jobs = waiting(database)
    assert {(job.campaign, job.lane, job.deadline is not None) for job in jobs} == {(batch.id, 2, True)}
    fox, owl = jobs
    hand.finish(hand.claim(fox.uuid), (picture(80, 64),))
    assert client.batches.retrieve(batch.id).output_file_id is None
    hand.fail(hand.claim(owl.uuid))
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert list(good) == ["fox"]
    assert httpx.get(
        good["fox"]["body"]["data"][0]["url"].replace(
            "http://127.0.0.1:8000", str(client.base_url)[: str(client.base_url).index("/", 8)]
        )
    ).content == picture(80, 64)
    assert {name: one["status_code"] for name, one in bad.items()} == {"owl": 500, "bear": 400}
    assert bad["bear"]["body"]["error"]["param"] == "size"
    told = client.files.retrieve(done.output_file_id or "")
    assert (told.purpose, told.bytes) == ("batch_output", len(client.files.content(done.output_file_id or "").content))
    assert client.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)


def test_edits_with_a_picture_in_the_line(client: openai.OpenAI, database: Database, hand: Hand) -> None:
    uri = "data:image/png;base64," + base64.b64encode(picture()).decode()
    batch = start(client, upload(client, line("edit", EDITS, images=[{"image_url": uri}]), line("none", EDITS)), EDITS)
    (job,) = waiting(database)
    assert (job.type, len(job.render_request.references)) == ("IMAGE_EDITOR", 1)
    assert hand.store.get(job.render_request.references[0]).startswith(b"\x89PNG")
    hand.finish(hand.claim(job.uuid))
    done = client.batches.retrieve(batch.id)
    assert list(results(client, done.output_file_id)) == ["edit"]
    assert results(client, done.error_file_id)["none"]["status_code"] == 400


def test_a_cancelled_batch_keeps_what_is_done(client: openai.OpenAI, database: Database, hand: Hand) -> None:
    batch = start(client, upload(client, line("one"), line("two"), line("three")))
    first, second, _ = waiting(database)
    hand.finish(hand.claim(first.uuid))
    running = hand.claim(second.uuid)
    assert client.batches.cancel(batch.id).status == "cancelling"
    hand.finish(running)
    done = client.batches.retrieve(batch.id)
    assert done.status == "cancelled"
    assert set(results(client, done.output_file_id)) == {"one", "two"}
    assert results(client, done.error_file_id)["three"]["status_code"] == 409


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        (["{"], 1, "is not JSON"),
        ([line("a"), line("a")], 2, "stands twice"),
        ([line("a"), line("b", EDITS)], 2, "url the batch's endpoint"),
        ([{**line("a"), "method": "GET"}], 1, "method must be POST"),
        ([{**line("a"), "custom_id": 7}], 1, "custom_id must be a text"),
        ([{**line("a"), "body": []}], 1, "body must be an object"),
        ([""], None, "no calls"),
    ],
)
def test_a_file_that_is_no_list_of_calls_makes_a_failed_batch(
    server: str, api_key: str, database: Database, lines: list[Any], number: int | None, why: str
) -> None:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=api_key, max_retries=0) as client:
        batch = start(client, upload(client, *lines))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data
    assert batch.errors.data[0].line == number
    assert why in (batch.errors.data[0].message or "")
    assert rows(database)["jobs"] == 0


def test_what_is_refused_at_once(server: str, api_key: str, other_key: str) -> None:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=api_key, max_retries=0) as client:
        file_id = upload(client, line("a"))
        with pytest.raises(openai.BadRequestError):
            start(client, file_id, "/v1/chat/completions")
        with pytest.raises(openai.BadRequestError):
            client.files.create(file=b"{}", purpose="fine-tune")
        with pytest.raises(openai.NotFoundError):
            start(client, "file-nothing")
        batch = start(client, file_id)
        with pytest.raises(openai.NotFoundError):
            client.files.content(f"file-{batch.id}-output")  # not over yet
        with openai.OpenAI(base_url=f"{server}/v1", api_key=other_key, max_retries=0) as stranger:
            for call in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(file_id)
            for look in (stranger.batches.retrieve, stranger.batches.cancel):
                with pytest.raises(openai.NotFoundError):
                    look(batch.id)
            assert stranger.batches.list().data == []
