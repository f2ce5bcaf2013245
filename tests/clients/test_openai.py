"""The official Python client of OpenAI, with nothing changed but its base URL and key."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image
from sqlalchemy import func, select

from fluxfarm.airecord import Problem
from fluxfarm.settings import Settings
from storage.records import Job
from storage.repository import attempts
from tests.api.samples import Hand, picture
from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.making import MODEL

PYTHON = "openai (Python)"
GENERATIONS, EDITS = "POST /v1/images/generations", "POST /v1/images/edits"
PROMPT: dict[str, Any] = {"model": MODEL, "prompt": "a lighthouse at dusk", "size": "64x64", "extra_body": {"steps": 2}}


def connect(place: Place, base: str = "/v1", **changes: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=place.url + base, api_key=changes.pop("api_key", place.key), **changes)


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    with connect(place) as made:
        yield made


@pytest.fixture
def waiting(idle: Place) -> Iterator[openai.OpenAI]:
    """Of a farm whose workers are away: what is refused needs none."""
    with connect(idle) as made:
        yield made


def opened(body: bytes) -> Image.Image:
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image


def pictures(reply: ImagesResponse) -> list[Image.Image]:
    """The pictures of a reply, whichever way they came."""
    assert reply.data
    found = [
        base64.b64decode(one.b64_json) if one.b64_json else httpx.get(one.url or "", trust_env=False).content
        for one in reply.data
    ]
    return [opened(body) for body in found]


def record(reply: ImagesResponse) -> dict[str, Any]:
    found: dict[str, Any] = (reply.model_extra or {})["aiRecord"]
    return found


def jobs(place: Place) -> int:
    with place.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


@client_call(PYTHON, "models.list()", "GET /v1/models")
def test_models_are_listed(waiting: openai.OpenAI) -> None:
    found = {model.id: model for model in waiting.models.list()}
    assert (found[MODEL].object, found[MODEL].owned_by) == ("model", "fluxfarm")
    assert found["black-forest-labs/flux-2-dev"].created == 1_763_942_400


@client_call(PYTHON, 'models.retrieve("black-forest-labs/flux-2-dev")', "GET /v1/models/{id}")
def test_a_model_is_read_through_a_slash(waiting: openai.OpenAI) -> None:
    assert waiting.models.retrieve("black-forest-labs/flux-2-dev").id == "black-forest-labs/flux-2-dev"
    assert waiting.models.retrieve("flux.2-dev").owned_by == "black-forest-labs"
    with pytest.raises(openai.NotFoundError) as caught:
        waiting.models.retrieve("gpt-image-9")
    assert caught.value.code == "model_not_found"


@client_call(PYTHON, "images.generate(model, prompt, size)", GENERATIONS)
def test_a_picture_behind_a_url(client: openai.OpenAI) -> None:
    reply = client.images.generate(**PROMPT)
    (image,) = pictures(reply)
    assert (image.format, image.size) == ("PNG", (64, 64))
    assert (reply.size, reply.output_format, reply.quality, reply.background) == ("64x64", "png", "medium", "opaque")
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (512, 16, 528)
    assert record(reply)["status"] == "SUCCESS"
    assert record(reply)["attempts"][0]["effective"]["steps"] == 2
    assert reply.created > 1_700_000_000


@client_call(PYTHON, 'images.generate(n=2, response_format="b64_json", output_format="webp")', GENERATIONS)
def test_two_pictures_in_the_reply(client: openai.OpenAI) -> None:
    reply = client.images.generate(
        **PROMPT, n=2, response_format="b64_json", output_format="webp", output_compression=60, user="u-1"
    )
    first, second = pictures(reply)
    assert first.format == second.format == "WEBP"
    assert first.tobytes() != second.tobytes()
    assert reply.usage is not None
    assert reply.usage.total_tokens == 2 * 528
    assert record(reply)["attempts"][0]["effective"]["output_quality"] == 60
    assert record(reply)["aiRecordDetail"]["promptObject"]["user"] == "u-1"


@client_call(
    PYTHON, 'images.generate(quality="low", background="opaque", moderation="low", style="vivid")', GENERATIONS
)
def test_quality_sets_the_steps_and_the_rest_is_said(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "a fox", "size": "64x64"}
    reply = client.images.generate(**asked, quality="low", background="opaque", moderation="low", style="vivid")
    (attempt,) = record(reply)["attempts"]
    assert attempt["effective"]["steps"] == 4
    assert attempt["ignored"] == ["moderation", "style"]
    assert reply.quality == "low"


@client_call(PYTHON, 'images.generate(extra_body={"seed", "steps", "guidance"})', GENERATIONS)
def test_a_seed_repeats_its_picture(client: openai.OpenAI) -> None:
    asked = {**PROMPT, "response_format": "b64_json", "extra_body": {"seed": 7, "steps": 2, "guidance": 4.5}}
    first, second = client.images.generate(**asked), client.images.generate(**asked)
    assert pictures(first)[0].tobytes() == pictures(second)[0].tobytes()
    assert record(first)["uuid"] != record(second)["uuid"]
    assert record(first)["attempts"][0]["seeds"] == [7]
    assert record(first)["attempts"][0]["effective"]["guidance"] == 4.5


LUMENFALL = (
    ({"aspect_ratio": "16:9", "resolution": "0.5K"}, "GIF", (683, 384), {"output_format": "gif"}),
    ({"aspect_ratio": "1:30", "resolution": "4K"}, "AVIF", (128, 1024), {"output_format": "avif"}),
)


@client_call(PYTHON, 'images.generate(extra_body={"aspect_ratio", "resolution", "cfg_scale", …})', GENERATIONS)
@pytest.mark.parametrize(("asked", "form", "size", "more"), LUMENFALL)
def test_lumenfalls_parameters(
    place: Place, asked: dict[str, str], form: str, size: tuple[int, int], more: dict[str, str]
) -> None:
    extra = {**asked, **more, "steps": 1, "cfg_scale": 2, "prompt_enhancement": "off", "sync_mode": False}
    with connect(place, "/openai/v1") as client:
        reply = client.images.generate(model="flux-2-klein-small", prompt="a fox", extra_body=extra)
    (image,) = pictures(reply)
    assert (image.format, image.size) == (form, size)
    assert record(reply)["attempts"][0]["ignored"] == ["sync_mode"]
    with place.database.transaction() as session:
        assert session.scalars(select(Job)).one().render_request.options == {"sync_mode": False}


def files(*kinds: str) -> list[io.BytesIO]:
    return [io.BytesIO(picture(96, 64, kind)) for kind in kinds]


@client_call(PYTHON, "images.edit(image=file)", EDITS)
def test_an_edit_of_a_file(client: openai.OpenAI, tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(picture(128, 64))
    with source.open("rb") as file:
        reply = client.images.edit(model=MODEL, image=file, prompt="at night", extra_body={"steps": 1, "seed": 3})
    (image,) = pictures(reply)
    assert image.width == 2 * image.height  # the shape of the file, as no size was asked for
    assert record(reply)["type"] == "IMAGE_EDITOR"
    assert record(reply)["attempts"][0]["seeds"] == [3]
    assert reply.usage is not None
    assert reply.usage.input_tokens_details.image_tokens == 4096


@client_call(PYTHON, "images.edit(image=[file, file, file, file])", EDITS)
def test_an_edit_of_several_files(client: openai.OpenAI) -> None:
    sources = files("PNG", "JPEG", "WEBP", "PNG")
    reply = client.images.edit(image=list(sources), input_fidelity="high", **PROMPT)
    assert pictures(reply)[0].size == (64, 64)
    shown = record(reply)["aiRecordDetail"]["promptObject"]["images"]
    assert [name[:7] for name in shown] == ["sha256:"] * 4
    assert record(reply)["attempts"][0]["ignored"] == ["input_fidelity"]


@client_call(PYTHON, 'post("/images/edits", body={"images": […]})', EDITS)
def test_an_edit_in_json(client: openai.OpenAI) -> None:
    data = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    body = {"model": MODEL, "prompt": "at night", "images": [{"image_url": data}], "size": "64x64", "steps": 1}
    reply = client.post("/images/edits", body=body, cast_to=ImagesResponse)
    assert pictures(reply)[0].size == (64, 64)


@client_call(PYTHON, "images.with_raw_response.generate(…)", GENERATIONS)
def test_the_raw_response_has_the_request_id(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(**PROMPT, extra_headers={"x-request-id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-fluxfarm-job"] == record(raw.parse())["uuid"]


@client_call(PYTHON, "AsyncOpenAI().images.generate(…)", GENERATIONS)
def test_the_asynchronous_client(place: Place) -> None:
    async def both() -> list[ImagesResponse]:
        async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key=place.key) as client:
            return list(await asyncio.gather(client.images.generate(**PROMPT), client.images.generate(**PROMPT)))

    first, second = asyncio.run(both())
    assert record(first)["uuid"] != record(second)["uuid"]  # alike, and two jobs: neither was a retry


@client_call(PYTHON, "images.generate(…) and a reply that got lost", GENERATIONS)
def test_a_retry_makes_no_second_job(place: Place) -> None:
    with connect(place, max_retries=2) as client:
        before = client.images.generate(**PROMPT)
        place.seen.lost = 2
        reply = client.images.generate(**PROMPT)
        assert place.seen.requests.count(GENERATIONS) == 4
        place.seen.lost = 1
        edit = client.images.edit(image=files("PNG"), **PROMPT)
        assert place.seen.requests.count(EDITS) == 2
    assert len({record(one)["uuid"] for one in (before, reply, edit)}) == jobs(place) == 3


@client_call(PYTHON, 'images.generate(extra_headers={"Idempotency-Key": …})', GENERATIONS)
def test_a_key_makes_one_job(client: openai.OpenAI, place: Place) -> None:
    asked = {**PROMPT, "extra_headers": {"Idempotency-Key": "campaign-7"}}
    first, again = client.images.generate(**asked), client.images.generate(**asked)
    assert record(first)["uuid"] == record(again)["uuid"]
    with pytest.raises(openai.UnprocessableEntityError):
        client.images.generate(**{**asked, "prompt": "another"})
    assert jobs(place) == 1


def dispatched(place: Place) -> UUID:
    """The one job that comes, once the API has let go of it."""
    query = select(Job.uuid).where(Job.dispatched_at.is_not(None))
    until = time.monotonic() + 10
    while True:
        with place.database.transaction() as session:
            uuid = session.scalars(query).one_or_none()
        if uuid is not None:
            return uuid
        assert time.monotonic() < until
        time.sleep(0.02)


def fail(place: Place, hand: Hand, code: str) -> None:
    """What a worker does with the one job that comes."""
    hand.fail(hand.claim(dispatched(place)), Problem(code=code, message="Refused.", retryable=False))


@client_call(PYTHON, "images.generate(stream=True, partial_images=3)", GENERATIONS)
def test_a_stream_shows_previews(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {**PROMPT, "extra_body": {"steps": 8}}
    events = list(client.images.generate(**asked, stream=True, partial_images=3, quality="high"))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    partial, last = events[1], events[-1]
    assert set(partial.model_dump()) == {
        *("type", "b64_json", "partial_image_index", "size", "quality", "background", "output_format", "created_at")
    }
    assert partial.type == "image_generation.partial_image"
    assert (partial.partial_image_index, partial.size, partial.output_format) == (1, "64x64", "png")
    assert opened(base64.b64decode(partial.b64_json)).size == (64, 64)
    assert last.type == "image_generation.completed"
    assert (last.quality, last.usage.total_tokens, last.usage.output_tokens) == ("high", 528, 16)
    assert opened(base64.b64decode(last.b64_json)).format == "PNG"
    assert len({event.b64_json for event in events}) == 4


@client_call(PYTHON, "images.edit(image=file, stream=True, partial_images=1)", EDITS)
def test_a_stream_of_an_edit(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=files("PNG"), stream=True, partial_images=1, **PROMPT))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


@client_call(PYTHON, "images.generate(…).data[0].revised_prompt", GENERATIONS)
def test_a_rewritten_prompt_is_told(idle: Place, hand: Hand) -> None:
    with ThreadPoolExecutor(1) as pool, connect(idle) as client:
        asked = {**PROMPT, "extra_body": {"prompt_upsampling": True, "stream": False}}
        call = pool.submit(lambda: client.images.generate(**asked))
        claim = hand.claim(dispatched(idle))
        assert claim.request.prompt_upsampling
        with idle.database.transaction() as session:
            assert attempts.revise(session, claim, "A lighthouse, seen from the sea.")
        hand.finish(claim)
        reply = call.result()
    assert reply.data
    assert reply.data[0].revised_prompt == record(reply)["revisedPrompt"] == "A lighthouse, seen from the sea."


@client_call(PYTHON, "images.generate(stream=True) and openai.APIError in the stream", GENERATIONS)
def test_a_stream_tells_of_a_failure(idle: Place, hand: Hand) -> None:
    with ThreadPoolExecutor(1) as pool, connect(idle) as client:
        failing = pool.submit(fail, idle, hand, "moderated")
        with pytest.raises(openai.APIError, match="safety_violations") as caught:
            list(client.images.generate(**PROMPT, stream=True))
        failing.result()
    assert caught.value.code == "moderation_blocked"


@client_call(PYTHON, "images.generate(…) and openai.BadRequestError moderation_blocked", GENERATIONS)
@pytest.mark.parametrize(
    ("failed", "kind", "code"),
    [
        ("moderated", openai.BadRequestError, "moderation_blocked"),
        ("render_failed", openai.InternalServerError, "generation_failed"),
    ],
)
def test_a_job_that_fails(idle: Place, hand: Hand, failed: str, kind: type[openai.APIStatusError], code: str) -> None:
    with ThreadPoolExecutor(1) as pool, connect(idle) as client:
        failing = pool.submit(fail, idle, hand, failed)
        with pytest.raises(kind) as caught:
            client.images.generate(**PROMPT)
        failing.result()
    assert caught.value.code == code
    assert idle.seen.requests == [GENERATIONS]


REFUSED = (
    ({"prompt": " "}, openai.BadRequestError, "invalid_value", "prompt"),
    ({"n": 11}, openai.BadRequestError, "invalid_value", "n"),
    ({"size": "9000x9000"}, openai.BadRequestError, "invalid_value", "size"),
    ({"background": "transparent"}, openai.BadRequestError, "invalid_value", "background"),
    ({"output_format": "svg"}, openai.BadRequestError, "invalid_value", "output_format"),
    ({"partial_images": 4, "stream": False}, openai.BadRequestError, "invalid_value", "partial_images"),
    ({"extra_body": {"seed": -1}}, openai.BadRequestError, "invalid_value", "seed"),
    ({"extra_body": {"resolution": 1e308}}, openai.BadRequestError, "invalid_value", "resolution"),
    ({"extra_body": {"guidance": 3, "cfg_scale": 3}}, openai.BadRequestError, "invalid_value", "cfg_scale"),
    ({"model": "gpt-image-9"}, openai.NotFoundError, "model_not_found", "model"),
    ({"model": "flux-2-dev"}, openai.BadRequestError, "no_route", "model"),
)


@pytest.mark.parametrize(("changes", "kind", "code", "param"), REFUSED)
@client_call(PYTHON, "images.generate(…) and openai.BadRequestError, NotFoundError", GENERATIONS)
def test_what_cannot_be_done_is_refused(
    waiting: openai.OpenAI,
    idle: Place,
    changes: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
    param: str,
) -> None:
    with pytest.raises(kind) as caught:
        waiting.images.generate(**{**PROMPT, **changes})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id
    assert idle.seen.requests == [GENERATIONS]
    assert jobs(idle) == 0


@client_call(PYTHON, "images.edit(mask=file) and openai.BadRequestError", EDITS)
def test_a_mask_is_refused(waiting: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="inpaints") as caught:
        waiting.images.edit(image=files("PNG"), mask=files("PNG")[0], **PROMPT)
    assert caught.value.param == "mask"
    with pytest.raises(openai.BadRequestError) as caught:
        waiting.images.edit(image=io.BytesIO(b"GIF89a"), **PROMPT)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "images.0")


@client_call(PYTHON, "images.generate(…) and openai.AuthenticationError", GENERATIONS)
def test_a_wrong_key(idle: Place) -> None:
    with connect(idle, api_key="sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.images.generate(**PROMPT)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")


@client_call(PYTHON, "images.edit(…) and openai.APIStatusError 413", EDITS)
def test_a_file_that_is_too_large(idle: Place) -> None:
    farm = idle.seen.farm
    farm.settings = farm.settings.model_copy(update={"upload_limit": 1024})
    with connect(idle) as client, pytest.raises(openai.APIStatusError) as caught:
        client.images.edit(image=io.BytesIO(picture() + bytes(2000)), **PROMPT)
    assert (caught.value.status_code, caught.value.code) == (413, "image_too_large")


@client_call(PYTHON, "images.generate(…) and openai.InternalServerError 504 when the wait is over", GENERATIONS)
def test_the_wait_ends_with_the_job_and_is_not_repeated(idle: Place) -> None:
    farm = idle.seen.farm
    farm.settings = farm.settings.model_copy(update={"longest_wait": 1})
    with connect(idle) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(**PROMPT)
    assert (caught.value.status_code, caught.value.code) == (504, "still_rendering")
    assert idle.seen.requests == [GENERATIONS]
    assert isinstance(caught.value.body, dict)
    headers = {"Authorization": f"Bearer {idle.key}"}
    read = httpx.get(f"{idle.url}/v1/jobs/{caught.value.body['job_id']}", headers=headers, trust_env=False)
    assert read.json()["aiRecord"]["status"] == "QUEUED"


def test_the_settings_of_the_wait_have_a_default() -> None:
    assert Settings().longest_wait == 300
