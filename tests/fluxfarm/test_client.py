"""The client against a farm on loopback that speaks the native contract."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxfarm import errors
from fluxfarm.airecord import Problem
from fluxfarm.client import Client
from fluxfarm.client_events import JobEvent, parse
from fluxfarm.jobs import JobState, Lane
from tests.fluxfarm.stub_api import (
    KEY,
    STEPS,
    Reply,
    StubFarm,
    json_reply,
    picture,
    progress_event,
    status_event,
)

ANYTHING = "a lighthouse"


@pytest.fixture
def farm() -> Iterator[StubFarm]:
    with StubFarm().running() as stub:
        yield stub


@pytest.fixture
def store() -> Iterator[StubFarm]:
    with StubFarm().running() as stub:
        yield stub


@pytest.fixture
def client(farm: StubFarm) -> Iterator[Client]:
    with Client(farm.url, KEY, timeout=5, patience=0.5) as client:
        yield client


# --- handing jobs in -------------------------------------------------------------------------------------------------


def test_every_option_arrives_under_the_contracts_name(client: Client, farm: StubFarm) -> None:
    client.submit(
        ANYTHING,
        model="flux-2-small",
        size="16:9",
        n=2,
        seed=2**63 - 1,
        steps=4,
        guidance=2.5,
        output_format="png",
        output_quality=90,
        images=["ref_abc", "https://example.com/a.png", "data:image/png;base64,AA"],
        lane=Lane.BULK,
        tags=["spring"],
        deadline=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        provider="local",
        extra={"go_fast": True},
    )
    call = farm.seen("POST", "/v1/jobs")[0]
    body = call.json
    assert datetime.fromisoformat(body.pop("deadline")) == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert body == {
        "type": "IMAGE_EDITOR",
        "model": "flux-2-small",
        "provider": "local",
        "lane": "bulk",
        "tags": ["spring"],
        "promptObject": {
            "prompt": ANYTHING,
            "size": "16:9",
            "n": 2,
            "seed": 2**63 - 1,
            "num_inference_steps": 4,
            "guidance": 2.5,
            "output_format": "png",
            "output_quality": 90,
            "images": ["ref_abc", "https://example.com/a.png", "data:image/png;base64,AA"],
            "go_fast": True,
        },
    }
    assert call.headers["content-type"] == "application/json"
    assert call.headers["authorization"] == f"Bearer {KEY}"


def test_what_is_not_said_is_not_sent_and_the_first_ready_model_is_taken(client: Client, farm: StubFarm) -> None:
    record = client.submit(ANYTHING)
    expected = {
        "type": "IMAGE_GENERATOR",
        "model": "fluxfarm/flux-2-klein-small",
        "promptObject": {"prompt": ANYTHING},
    }
    assert farm.seen("POST", "/v1/jobs")[0].json == expected
    assert record.status is JobState.QUEUED
    farm.models = farm.models[:2]
    assert client.default_model() == "fluxfarm/flux-2-small"
    farm.models = farm.models[:1]
    with pytest.raises(errors.NoRoute):
        client.submit(ANYTHING)


def test_files_and_bytes_are_uploaded_in_order_and_their_names_stay_here(
    client: Client, farm: StubFarm, tmp_path: Path
) -> None:
    secret = tmp_path / "secret-campaign.png"
    secret.write_bytes(b"first picture")
    client.submit(ANYTHING, images=[secret, "ref_known", b"second picture", str(secret)])
    first, second, third = farm.seen("POST", "/v1/references")
    assert b"first picture" in first.body
    assert b"second picture" in second.body
    assert b"first picture" in third.body
    assert b'name="file"' in first.body
    assert b"secret-campaign" not in first.body + third.body
    body = farm.seen("POST", "/v1/jobs")[0].json
    assert body["promptObject"]["images"] == ["ref_1", "ref_known", "ref_2", "ref_3"]


@pytest.mark.parametrize("name", ["missing.png", ".", "nul\0name.png"])
def test_a_reference_that_cannot_be_read_is_said_before_anything_is_sent(
    client: Client, farm: StubFarm, tmp_path: Path, name: str
) -> None:
    with pytest.raises(errors.InvalidReference, match="Cannot read"):
        client.submit(ANYTHING, images=[tmp_path / name])
    assert not farm.seen("POST")


def test_text_that_utf8_cannot_hold_reaches_the_farm_and_nan_does_not(client: Client, farm: StubFarm) -> None:
    client.submit("half \ud83d", model="m")
    assert farm.seen("POST", "/v1/jobs")[0].json["promptObject"]["prompt"] == "half \ud83d"
    with pytest.raises(errors.InvalidField):
        client.submit(ANYTHING, model="m", guidance=math.nan)
    with pytest.raises(errors.InvalidField):
        client.submit(ANYTHING, model="m", extra={"odd": object()})
    with pytest.raises(errors.InvalidField):
        client.list(tag="\udcff")
    with pytest.raises(TypeError, match="stepz"):
        client.submit(ANYTHING, stepz=3)  # type: ignore[call-arg]


# --- waiting and events ----------------------------------------------------------------------------------------------


def test_render_gives_the_record_and_every_picture(client: Client, farm: StubFarm) -> None:
    rendered = client.render(ANYTHING, n=3)
    assert rendered.record.status is JobState.SUCCESS
    assert rendered.images == [picture(0), picture(1), picture(2)]
    assert "authorization" not in farm.seen("GET", "/objects")[0].headers


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("out_of_memory", errors.OutOfMemory),
        ("model_unavailable", errors.ModelUnavailable),
        ("store_unavailable", errors.RenderError),
        ("from_the_future", errors.RenderError),
    ],
)
def test_a_failed_job_raises_the_leaf_of_its_code(
    client: Client, farm: StubFarm, code: str, kind: type[errors.RenderError]
) -> None:
    farm.outcome, farm.error = JobState.FAILED, Problem(code=code, message="No room.", retryable=True)
    with pytest.raises(errors.RenderError, match="No room") as caught:
        client.render(ANYTHING)
    assert type(caught.value) is kind
    assert client.wait(next(iter(farm.jobs))).status is JobState.FAILED


def test_a_canceled_job_raises_canceled_and_cannot_be_canceled_twice(client: Client, farm: StubFarm) -> None:
    farm.outcome = None
    record = client.submit(ANYTHING)
    assert client.cancel(record.uuid).status is JobState.CANCELED
    with pytest.raises(errors.Canceled):
        client.wait(record.uuid, check=True)
    with pytest.raises(errors.Conflict):
        client.cancel(record.uuid)
    client.delete(record.uuid)
    with pytest.raises(errors.NotFound):
        client.get(record.uuid)


@pytest.mark.parametrize("holds", [True, False])
def test_a_wait_ends_on_time_without_a_tight_loop(client: Client, farm: StubFarm, *, holds: bool) -> None:
    farm.holds = holds
    record = farm.add_job({"prompt": ANYTHING})
    begun = time.monotonic()
    with pytest.raises(errors.Conflict, match="still QUEUED"):
        client.wait(record.uuid, timeout=1.2)
    assert 1 <= time.monotonic() - begun < 4
    assert len(farm.calls) <= 4


def test_events_come_in_order_and_end_with_the_job(client: Client) -> None:
    events = list(client.events(client.submit(ANYTHING).uuid))
    assert [event.id for event in events] == [str(number) for number in range(1, STEPS + 4)]
    assert [event.status for event in events if event.status] == ["QUEUED", "RUNNING", "SUCCESS"]
    assert [event.progress.step for event in events if event.progress] == list(range(1, STEPS + 1))


def test_a_broken_stream_is_taken_up_after_the_last_event(client: Client, farm: StubFarm) -> None:
    farm.cut_events_after = 4
    record = client.submit(ANYTHING)
    assert [int(event.id) for event in client.events(record.uuid)] == list(range(1, STEPS + 4))
    streams = farm.seen("GET", f"/v1/jobs/{record.uuid}/events")
    assert [call.headers.get("last-event-id") for call in streams] == [None, "4", "8"]


def test_events_after_the_last_one_are_none(client: Client) -> None:
    record = client.submit(ANYTHING)
    assert list(client.events(record.uuid, last_event_id=str(STEPS + 3))) == []
    with pytest.raises(errors.NotFound):
        list(client.events(uuid4()))


WIRE = (
    b": hello\r\n\r\n"
    + status_event(1, JobState.RUNNING).replace(b"\n", b"\r\n")
    + progress_event(2, 3)
    + b"data: no json\n\n"
    b'id: 3\revent: preview\rdata: {"text":\rdata:"a\xe2\x80\xa8b"}\r\r'
    b'retry: 10\nid: 4\nevent: status\ndata: {"status": "NEW_WORD"}\n\n' + b'id: 5\ndata: {"cut": "off"}\n'
)


@given(st.lists(st.integers(1, len(WIRE) - 1), max_size=12))
@example(list(range(1, len(WIRE))))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(WIRE)]
    chunks = [WIRE[begin:end] for begin, end in pairwise(places)]
    events = list(parse(chunks))
    assert events == [
        JobEvent("1", "status", {"status": "RUNNING"}),
        JobEvent("2", "progress", {"step": 3, "steps": STEPS}),
        JobEvent("3", "preview", {"text": "a\u2028b"}),
        JobEvent("4", "status", {"status": "NEW_WORD"}),
    ]
    assert events[3].status is None
    assert not events[3].is_last


def test_a_line_without_end_is_not_collected_for_ever() -> None:
    with pytest.raises(errors.Unavailable):
        list(parse(b"x" * 2**20 for _ in range(100)))


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_download_follows_redirects_and_never_carries_the_key(
    client: Client, farm: StubFarm, store: StubFarm
) -> None:
    farm.store_url = store.url
    record = farm.finish(farm.add_job({"prompt": ANYTHING}).uuid, JobState.SUCCESS)
    store.next("GET", "/objects/0", Reply(302, b"", {"location": f"{farm.url}/objects/0?other=1"}))
    assert client.download(record) == picture(0)
    for call in (store.seen("GET", "/objects")[0], farm.seen("GET", "/objects")[0]):
        assert KEY not in str(call)
        assert "authorization" not in call.headers


def test_an_expired_link_is_asked_for_anew_once(client: Client, farm: StubFarm) -> None:
    record = farm.finish(farm.add_job({"prompt": ANYTHING}).uuid, JobState.SUCCESS)
    farm.next("GET", "/objects/0", Reply(403))
    assert client.download(record) == picture(0)
    farm.next("GET", "/objects/0", Reply(403), Reply(403))
    with pytest.raises(errors.LinkExpired) as caught:
        client.download(record)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(404), errors.NotFound),
        (Reply(500), errors.StoreUnavailable),
        (Reply(None), errors.StoreUnavailable),
    ],
)
def test_a_store_that_fails_is_named_without_the_link(
    client: Client, farm: StubFarm, reply: Reply, kind: type[errors.FluxfarmError]
) -> None:
    record = farm.finish(farm.add_job({"prompt": ANYTHING}).uuid, JobState.SUCCESS)
    farm.next("GET", "/objects/0", reply)
    with pytest.raises(kind) as caught:
        client.download(record)
    assert "127.0.0.1" in caught.value.message
    assert "signature" not in caught.value.message


def test_a_picture_that_is_not_there_is_a_conflict(client: Client, farm: StubFarm) -> None:
    with pytest.raises(errors.Conflict):
        client.download(farm.add_job({"prompt": ANYTHING}))


# --- lists -----------------------------------------------------------------------------------------------------------


def test_pages_are_followed_to_the_last_with_the_same_filter(client: Client, farm: StubFarm) -> None:
    rows = [farm.add_job({"prompt": str(number)}).model_dump(mode="json", by_alias=True) for number in range(3)]
    pages = [{"data": rows[:2], "nextCursor": "c1"}, {"data": rows[2:], "nextCursor": None}]
    farm.next("GET", "/v1/jobs", *(json_reply(page) for page in pages))
    assert [job.ai_record_detail.prompt_object["prompt"] for job in client.iterate(tag="a b&c")] == ["0", "1", "2"]
    assert [call.query for call in farm.calls] == [{"tag": "a b&c"}, {"tag": "a b&c", "cursor": "c1"}]


def test_models_keep_what_a_newer_farm_adds(client: Client, farm: StubFarm) -> None:
    farm.models[0]["futureField"] = 1
    assert client.models()[0].model_dump(by_alias=True)["futureField"] == 1
