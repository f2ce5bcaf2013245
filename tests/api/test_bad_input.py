"""Whatever is sent: a 4xx in problem+json with a stable code, and nothing stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.samples import body, rows

JSON = {"Content-Type": "application/json"}
GOOD = json.dumps(body()).encode()


def files(settings: Settings) -> list[Path]:
    """Every object, and every half of one."""
    return [path for path in (settings.data_dir / "objects").rglob("*") if path.is_file()]


@pytest.fixture(autouse=True)
def nothing_is_stored(database: Database, settings: Settings) -> Iterator[None]:
    yield
    assert set(rows(database).values()) == {0}
    assert files(settings) == []


def problem(reply: Any, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = reply.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["type"] == f"urn:fluxfarm:problem:{code}"
    assert found["instance"] == f"urn:fluxfarm:request:{reply.headers['x-request-id']}"
    assert found["detail"]
    return found


def raw(text: str) -> bytes:
    """A good body with ``text`` as the seed."""
    return GOOD.replace(b'"a fox"', b'"a fox", "seed": ' + text.encode())


RAW: list[tuple[bytes, str]] = [
    (b"", "malformed_body"),
    (b"{", "malformed_body"),
    (b"[]", "malformed_body"),
    (b"null", "malformed_body"),
    (b"7", "malformed_body"),
    (b'"text"', "malformed_body"),
    (b"{}", "invalid_field"),
    (b"{'type': 1}", "malformed_body"),
    (b"\xff\xfe{\x00}\x00", "malformed_body"),
    (json.dumps(body()).encode("utf-16"), "malformed_body"),
    (json.dumps(body()).encode("utf-32-le"), "malformed_body"),
    (b"\xef\xbb\xbf" + GOOD, "malformed_body"),
    (GOOD[:-1], "malformed_body"),
    (GOOD + b"x", "malformed_body"),
    (GOOD.replace(b"a fox", b"\xc3\x28"), "malformed_body"),
    (GOOD.replace(b"a fox", b"\\u0000"), "malformed_body"),
    (GOOD.replace(b"a fox", b"\\ud800"), "malformed_body"),
    (GOOD.replace(b'"prompt"', b'"\\udfff"'), "malformed_body"),
    (GOOD.replace(b'"prompt"', b'"prompt": "a", "prompt"'), "malformed_body"),
    (GOOD.replace(b'{"type"', b'{"type": "x", "type"'), "malformed_body"),
    (raw("NaN"), "malformed_body"),
    (raw("Infinity"), "malformed_body"),
    (raw("-Infinity"), "malformed_body"),
    (raw("1e999"), "malformed_body"),
    (raw("-1e400"), "malformed_body"),
    (raw("9" * 5000), "malformed_body"),
    (raw("9" * 900), "invalid_field"),
    (raw("7.0"), "invalid_field"),
    (raw('"7"'), "invalid_field"),
    (raw("true"), "invalid_field"),
    (raw("[7]"), "invalid_field"),
    (raw("-1"), "invalid_field"),
    (raw("9223372036854775808"), "invalid_field"),
    (raw("[" * 100_000), "malformed_body"),
    (raw("[" * 100 + "]" * 100), "malformed_body"),
    (raw('{"a":' * 70 + "1" + "}" * 70), "malformed_body"),
    (b"[" * 100_000 + b"]" * 100_000, "malformed_body"),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "malformed_body"),
    (GOOD.replace(b"a fox", b"a\tfox"), "malformed_body"),
    (b'{"\\u0000": 1}', "malformed_body"),
    (b'{"type": "IMAGE_GENERATOR", "type": "IMAGE_GENERATOR"}', "malformed_body"),
    (b"\x1f\x8b\x08\x00" + GOOD, "malformed_body"),
]


@pytest.mark.parametrize(("content", "code"), RAW, ids=range(len(RAW)))
def test_raw_bodies(api: TestClient, content: bytes, code: str) -> None:
    problem(api.post("/v1/jobs", content=content, headers=JSON), 400, code)
    problem(api.post("/v1/keys", content=content, headers=JSON), 400, _for_keys(content, code))


def _for_keys(content: bytes, code: str) -> str:
    """A body that can be read is still no key."""
    return code if code == "malformed_body" or content == b"{}" else "unknown_field"


PROMPTS: list[tuple[Any, str, str]] = [
    ({"prompt": ""}, "invalid_prompt", "prompt"),
    ({"prompt": "  \n "}, "invalid_prompt", "prompt"),
    ({"prompt": "x" * 4001}, "invalid_prompt", "prompt"),
    ({"prompt": "\U0001f98a" * 4000 + "x"}, "invalid_prompt", "prompt"),
    ({"prompt": "a\x07b"}, "invalid_prompt", "prompt"),
    ({"prompt": 7}, "invalid_field", "prompt"),
    ({"prompt": None}, "invalid_field", "prompt"),
    ({"promt": "a fox"}, "unknown_field", "promt"),
    ({"size": "banana"}, "invalid_size", "size"),
    ({"size": "0x0"}, "invalid_size", "size"),
    ({"size": "99999x99999"}, "invalid_size", "size"),
    ({"size": "64x1024"}, "invalid_size", "size"),
    ({"size": "1025x64"}, "invalid_size", "size"),
    ({"size": "0:0"}, "invalid_size", "aspect_ratio"),
    ({"size": 64}, "invalid_field", "size"),
    ({"size": "x" * 33}, "invalid_field", "size"),
    ({"size": None, "width": 64}, "invalid_field", "width"),
    ({"size": None, "width": 64, "height": 64.0}, "invalid_field", "height"),
    ({"size": None, "width": 10**30, "height": 64}, "invalid_field", "width"),
    ({"size": None, "aspect_ratio": "wide"}, "invalid_size", "aspect_ratio"),
    ({"size": None, "aspect_ratio": "match_input_image"}, "invalid_field", "aspect_ratio"),
    ({"size": None, "resolution": "9K"}, "invalid_size", "resolution"),
    ({"size": None, "resolution": "nan"}, "invalid_size", "resolution"),
    ({"size": None, "megapixels": 1e308}, "invalid_size", "resolution"),
    ({"size": None, "megapixels": -1}, "invalid_size", "resolution"),
    ({"size": None, "megapixels": True}, "invalid_field", "megapixels"),
    ({"size": None, "megapixels": 1, "resolution": "1K"}, "invalid_field", "megapixels"),
    ({"n": 0}, "invalid_field", "n"),
    ({"n": 11}, "invalid_field", "n"),
    ({"steps": 51}, "invalid_field", "num_inference_steps"),
    ({"steps": 2, "num_inference_steps": 2}, "invalid_field", "steps"),
    ({"guidance": 11}, "invalid_field", "guidance"),
    ({"guidance": "4"}, "invalid_field", "guidance"),
    ({"output_format": "bmp"}, "invalid_field", "output_format"),
    ({"output_quality": 101}, "invalid_field", "output_quality"),
    ({"images": "ref_x"}, "invalid_field", "images"),
    ({"images": ["ref_nobody"]}, "invalid_reference", "images.0"),
    ({"images": ["fox.png"]}, "invalid_reference", "images.0"),
    ({"images": ["ftp://example.com/a.png"]}, "invalid_reference", "images.0"),
    ({"images": ["data:image/svg+xml;base64,AAAA"]}, "invalid_reference", "images.0"),
    ({"images": ["data:image/png;base64,?"]}, "invalid_reference", "images.0"),
    ({"images": ["data:image/png;base64,AAAA"]}, "invalid_reference", "images.0"),
    ({"images": ["https://"]}, "forbidden_url", "images.0"),
    ({"images": ["http://example.com/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["https://127.0.0.1/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["https://169.254.169.254/latest/meta-data"]}, "forbidden_url", "images.0"),
    ({"images": ["https://[::1]/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["https://2130706433/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["https://user:pass@example.com/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["https://localhost/a.png"]}, "forbidden_url", "images.0"),
    ({"images": ["ref_a"] * 11}, "invalid_field", "images"),
    ({"loras": [{"path": "../x"}]}, "invalid_field", "loras.0"),
    ({"acceleration": "warp"}, "invalid_field", "acceleration"),
    ({"go_fast": "yes"}, "invalid_field", "go_fast"),
]


@pytest.mark.parametrize(("asked", "code", "param"), PROMPTS, ids=range(len(PROMPTS)))
def test_prompt_objects(api: TestClient, asked: dict[str, Any], code: str, param: str) -> None:
    found = problem(api.post("/v1/jobs", json=body(asked)), 400, code)
    assert found["param"] == f"promptObject.{param}"


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"type": "VIDEO"}, 400, "invalid_field", "type"),
        ({"type": "IMAGE_EDITOR"}, 400, "invalid_field", "promptObject.images"),
        ({"model": "sdxl"}, 404, "model_not_found", "model"),
        ({"model": "x" * 500}, 400, "invalid_field", "model"),
        ({"model": "black-forest-labs/flux-2-pro"}, 400, "no_route", "model"),
        ({"model": "black-forest-labs/flux-2-dev"}, 400, "no_route", "model"),
        ({"provider": "nobody"}, 400, "invalid_field", "provider"),
        ({"provider": "fal"}, 400, "no_route", "provider"),
        ({"fallback": ["local", "nobody"]}, 400, "invalid_field", "fallback.1"),
        ({"fallback": ["local", "local"]}, 400, "invalid_field", "fallback.1"),
        ({"fallback": ["local"]}, 400, "invalid_field", "fallback.0"),
        ({"provider": "auto", "fallback": ["fal", "local"]}, 400, "invalid_field", "fallback.1"),
        ({"lane": "fast"}, 400, "invalid_field", "lane"),
        ({"deadline": "tomorrow"}, 400, "invalid_field", "deadline"),
        ({"deadline": "2020-01-01T00:00:00Z"}, 400, "invalid_field", "deadline"),
        ({"deadline": "2099-01-01T00:00:00"}, 400, "invalid_field", "deadline"),
        ({"deadline": "0001-01-01T00:00:00+14:00"}, 400, "invalid_field", "deadline"),
        ({"deadline": 4102444800}, 400, "invalid_field", "deadline"),
        ({"tags": ["a"] * 21}, 400, "invalid_field", "tags"),
        ({"tags": ["x" * 65]}, 400, "invalid_field", "tags.0"),
        ({"tags": [""]}, 400, "invalid_field", "tags.0"),
        ({"tags": "a"}, 400, "invalid_field", "tags"),
        ({"maxCost": -1}, 400, "invalid_field", "maxCost"),
        ({"maxCost": "NaN"}, 400, "invalid_field", "maxCost"),
        ({"maxcost": 1}, 400, "unknown_field", "maxcost"),
        ({"webhook": "http://example.com"}, 400, "forbidden_url", "webhook"),
        ({"promptObject": []}, 400, "invalid_field", "promptObject"),
    ],
)
def test_top_level_fields(api: TestClient, changes: dict[str, Any], status: int, code: str, param: str) -> None:
    found = problem(api.post("/v1/jobs", json=body() | changes), status, code)
    assert found["param"] == param


def test_a_misspelt_name_gets_a_suggestion(api: TestClient) -> None:
    found = problem(api.post("/v1/jobs", json=body({"gudance": 4})), 400, "unknown_field")
    assert found["detail"] == "'promptObject.gudance' is no field here; did you mean 'guidance'?"
    found = problem(api.post("/v1/jobs", json=body(lanes="bulk")), 400, "unknown_field")
    assert "did you mean 'lane'?" in found["detail"]


def test_no_reply_repeats_what_was_sent(api: TestClient) -> None:
    secret = "s3cret-" * 100
    for changes in ({"type": secret}, {"lane": secret}, {"tags": secret}, {"model": secret}):
        reply = api.post("/v1/jobs", json=body() | changes)
        assert reply.status_code == 400
        assert "s3cret" not in reply.text
    reply = api.post("/v1/jobs", json=body({"prompt": secret * 10}))
    assert "s3cret" not in reply.text


def test_why_there_is_no_route(api: TestClient) -> None:
    remote = problem(api.post("/v1/jobs", json=body(model="flux-2-pro")), 400, "no_route")
    assert "remote providers only" in remote["detail"]
    unset = problem(api.post("/v1/jobs", json=body(model="flux-2-dev")), 400, "no_route")
    assert "FLUXFARM_MODELS" in unset["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_content_types(api: TestClient, headers: dict[str, str]) -> None:
    problem(api.post("/v1/jobs", content=GOOD, headers=headers), 415, "unsupported_media_type")


def test_paths_and_methods(api: TestClient) -> None:
    problem(api.get("/v1/nothing"), 404, "not_found")
    problem(api.get("/v1/jobs/"), 404, "not_found")
    problem(api.get("/v1/jobs/not-a-uuid"), 404, "not_found")
    problem(api.get("/v1/assets/00000000-0000-0000-0000-000000000000/-1"), 404, "not_found")
    put = api.put("/v1/jobs")
    problem(put, 405, "method_not_allowed")
    assert put.headers["allow"] == "GET, HEAD, POST"
    patch = api.patch("/v1/jobs/00000000-0000-0000-0000-000000000000")
    problem(patch, 405, "method_not_allowed")
    assert patch.headers["allow"] == "DELETE, GET, HEAD"
