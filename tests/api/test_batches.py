"""OpenAI's Batch API with the official client, against a real server; a hand renders."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai.types import Batch
from starlette.testclient import TestClient

from api import outside_pictures
from api.farm import Farm
from api.main import create_app
from fluxfarm.errors import DatabaseUnavailable, UnreachableUrl
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.pictures import sanitise
from storage.records import Job, Tenant
from storage.repository import batches, ledger
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


def fetched(urls: list[str], url: str) -> bytes:
    urls.append(url)
    if "away" in url:
        raise UnreachableUrl("Nobody answers.")
    return picture()


def test_pictures_are_fetched_once_for_all_lines_and_kept_for_those_that_are_rendered(
    settings: Settings, api_key: str, database: Database, store: ObjectStore
) -> None:
    urls: list[str] = []
    uri = "data:image/png;base64," + base64.b64encode(picture(64, 96)).decode()
    app = create_app(settings, fetch=partial(fetched, urls))

    def edit(name: str, *images: str, **body: Any) -> dict[str, Any]:
        return line(name, EDITS, images=[{"image_url": one} for one in images], **body)

    with TestClient(app) as web, openai.OpenAI(base_url="http://testserver/v1", api_key=api_key, http_client=web) as me:
        lines = [edit(f"fox{n}", "https://a.example/fox.png", uri) for n in range(3)]
        lines += [edit("gone", "https://a.example/big.png", "https://away.example/owl.png")]
        lines += [edit("none", "https://away.example/owl.png"), edit("bad", "https://a.example/bad.png", size="9x9")]
        batch = start(me, upload(me, *lines), EDITS)
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.failed) == (6, 3)
        jobs = waiting(database)
        assert len({key for job in jobs for key in job.render_request.references}) == 2
        assert sorted(urls) == [
            f"https://{name}.png" for name in ("a.example/big", "a.example/fox", "away.example/owl")
        ]
        assert len(list(store.keys("t/"))) == rows(database)["reference_images"] == 2
        me.batches.cancel(batch.id)
        bad = results(me, f"file-{batch.id}-errors")
        assert [bad[name]["body"]["error"]["param"] for name in ("gone", "none")] == ["images.1", "images.0"]
        urls.clear()
        many = [edit(f"n{n}", f"https://a.example/{n}.png") for n in range(101)]
        refused = start(me, upload(me, *many), EDITS)
        assert refused.status == "failed"
        assert refused.errors is not None
        assert [one.code for one in refused.errors.data or []] == ["too_many_urls"]
        assert urls == []
        assert {one.id: one.status for one in me.batches.list()} == {batch.id: "cancelled", refused.id: "failed"}


def test_pictures_of_a_batch_that_fails_are_taken_back(
    settings: Settings, api_key: str, database: Database, tenant: Tenant, store: ObjectStore
) -> None:
    priced = settings.model_copy(update={"gpu_second_price": Decimal(1)})
    with database.transaction() as session:
        ledger.set_cap(session, tenant.id, ledger.TENANT, Decimal("0.000001"))
    app = create_app(priced, fetch=partial(fetched, []))
    with TestClient(app) as web, openai.OpenAI(base_url="http://testserver/v1", api_key=api_key, http_client=web) as me:
        file_id = upload(me, line("fox", EDITS, images=[{"image_url": "https://a.example/fox.png"}]))
        with pytest.raises(openai.APIStatusError, match="budget"):
            start(me, file_id, EDITS)
    assert rows(database)["jobs"] == 0
    assert list(store.keys("t/")) == []


@pytest.mark.parametrize(("may_be_done", "left"), [(False, 0), (True, 1)])
def test_pictures_stay_only_where_nobody_knows_whether_their_rows_were_stored(
    app: FastAPI, tenant: Tenant, store: ObjectStore, may_be_done: bool, left: int
) -> None:
    def put(farm: Farm) -> None:
        with outside_pictures.keeping(farm, tenant.id) as keeper:
            keeper.keep(sanitise(picture()))
            raise DatabaseUnavailable("Away.", may_be_done=may_be_done)

    with TestClient(app):
        with pytest.raises(DatabaseUnavailable):
            put(app.state.farm)
        assert len(list(store.keys("t/"))) == left


def test_a_batch_that_is_over_keeps_its_end(client: openai.OpenAI, database: Database, hand: Hand) -> None:
    batch = start(client, upload(client, line("one"), line("b64", response_format="b64_json")))
    hand.finish(hand.claim(waiting(database)[0].uuid))
    done = client.batches.retrieve(batch.id)
    assert results(client, done.error_file_id)["b64"]["body"]["error"]["param"] == "response_format"
    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(batch.id)
    assert client.batches.retrieve(batch.id) == done
    failed = start(client, upload(client, "{"))
    with pytest.raises(openai.ConflictError, match="failed"):
        client.batches.cancel(failed.id)
    other = start(client, upload(client, line("two")))
    assert [client.batches.cancel(other.id).status for _ in range(2)] == ["cancelled", "cancelled"]
    with database.transaction() as session:
        assert batches.tallies(session, uuid4(), [batch.id]) == {batch.id: batches.NOTHING}


def test_files_come_page_by_page_under_their_names(client: openai.OpenAI) -> None:
    made = [
        client.files.create(file=(name, b"{}"), purpose="batch") for name in ("größe.jsonl", "b\u200b.jsonl", "c" * 300)
    ]
    page = client.files.list(limit=2)
    assert (page.has_more, [one.filename for one in page.data]) == (True, ["c" * 200, "b.jsonl"])
    assert [one.id for one in page] == [one.id for one in reversed(made)]  # the client turns the pages
    assert client.files.retrieve(made[0].id).filename == "größe.jsonl"
    with pytest.raises(openai.NotFoundError):
        client.files.list(after="file-nothing")


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
