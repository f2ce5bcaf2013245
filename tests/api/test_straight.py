"""A plain call and one that FastAPI reads are answered alike; an unused name in the query makes the difference."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.submit import SMALL
from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.samples import body, rows

UNUSED = "?unused=1"
JOB: dict[str, str] = {"Content-Type": "application/json"}
#: what a call sends, and its status and code
CALLS: tuple[tuple[str, dict[str, Any], int, str | None], ...] = (
    ("a job", {"json": body()}, 202, None),
    ("a job as a reader of bytes sees it", {"content": b'{"type": 1}', "headers": JOB}, 400, "invalid_field"),
    ("half a body", {"content": b"{", "headers": JOB}, 400, "malformed_body"),
    ("no JSON", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
    ("nobody", {"json": body(), "headers": {"Authorization": "Bearer ff_live_nobodys"}}, 401, "invalid_api_key"),
    ("nobody, without a body", {"headers": {"Authorization": ""}}, 401, "invalid_api_key"),
    ("two keys of one call", {"json": body(), "headers": [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]}, 400,
     "invalid_idempotency_key"),
    ("a key", {"json": body(), "headers": {"Idempotency-Key": "k"}}, 202, None),
    ("an unknown picture", {"json": body(promptObject={"prompt": "x", "images": ["ref_x"]})}, 400, "invalid_reference"),
    ("an unknown webhook", {"json": body(webhook="wh_x")}, 400, "invalid_field"),
    ("a stranger's provider", {"json": body(provider="nobody")}, 400, "invalid_field"),
    ("a late deadline", {"json": body(deadline="2001-01-01T00:00:00Z")}, 400, "invalid_field"),
    ("a long body", {"json": body(promptObject={"prompt": "x" + " " * SMALL})}, 202, None),
)  # fmt: skip


@pytest.mark.parametrize(("call", "status", "code"), [one[1:] for one in CALLS], ids=[one[0] for one in CALLS])
def test_both_ways_answer_alike(
    api: TestClient, database: Database, call: dict[str, Any], status: int, code: str | None
) -> None:
    straight, usual = api.post("/v1/jobs", **call), api.post(f"/v1/jobs{UNUSED}", **call)
    for reply in (straight, usual):
        assert (reply.status_code, reply.json().get("code")) == (status, code), reply.text
    assert set(straight.headers) == set(usual.headers) - {"idempotency-replayed"}
    if status == 202:
        for reply in (straight, usual):
            job = reply.json()["aiRecord"]
            poll, other = api.get(f"/v1/jobs/{job['uuid']}"), api.get(f"/v1/jobs/{job['uuid']}{UNUSED}")
            assert poll.json() == other.json()
            assert (poll.json()["aiRecord"], poll.status_code) == (job, 200)
        assert straight.json()["aiRecord"].keys() == usual.json()["aiRecord"].keys()
    expected = 0 if code else 1 if "idempotency-replayed" in usual.headers else 2
    assert rows(database)["jobs"] == expected


@pytest.mark.parametrize("name", ["1", "00000000-0000-0000-0000-000000000000", "0" * 32, "%00", "a" * 36])
def test_unknown_jobs_are_unknown_both_ways(api: TestClient, name: str) -> None:
    straight, usual = api.get(f"/v1/jobs/{name}"), api.get(f"/v1/jobs/{name}{UNUSED}")
    assert (straight.status_code, straight.json()["code"]) == (404, "not_found")
    assert straight.json()["detail"] == usual.json()["detail"]


def test_both_ways_are_counted_and_limited(settings: Settings, api: TestClient) -> None:
    left = [api.get(f"/v1/jobs/{'0' * 8}-0000-0000-0000-{'0' * 12}{query}").headers["ratelimit"]
            for query in ("", UNUSED, "")]  # fmt: skip
    assert settings.rate_limit
    assert len(set(left)) == 3
