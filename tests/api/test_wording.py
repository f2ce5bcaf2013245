"""Every error below a dialect's prefix comes in that dialect's form, whoever raised it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api.dialects import native_errors, openai_errors
from api.errors import wording_of
from fluxfarm import errors
from fluxfarm.errors import FluxfarmError
from fluxfarm.problems import tree


@pytest.mark.parametrize(
    ("path", "wording"),
    [
        ("/v1/jobs", native_errors.error_reply),
        ("/v1/imagesque", native_errors.error_reply),
        ("/v1/images", openai_errors.error_reply),
        ("/v1/images/nothing", openai_errors.error_reply),
        ("/openai/v1/images/edits", openai_errors.error_reply),
        ("/v1/models/x/y", openai_errors.shared_reply),
        ("/openai/v1/models", openai_errors.shared_reply),
        ("/openai/v2", openai_errors.error_reply),
    ],
)
def test_the_prefix_says_who_words(path: str, wording: object) -> None:
    assert wording_of(path) is wording


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths_and_missing_keys(api: TestClient, method: str) -> None:
    unknown = api.request(method, "/openai/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    assert unknown.headers["x-request-id"]
    refused = api.get("/v1/models", headers={"Authorization": "Bearer no"})
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.json()["code"] == refused.json()["error"]["code"] == "invalid_api_key"
    assert refused.json()["error"]["type"] == "authentication_error"


OPENAI = (
    (errors.InvalidField("Bad.", param="n"), 400, "invalid_request_error", "invalid_value"),
    (errors.UnknownField("Bad."), 400, "invalid_request_error", "unknown_parameter"),
    (errors.Unauthorized("Bad."), 401, "authentication_error", "invalid_api_key"),
    (errors.ModelNotFound("Bad."), 404, "not_found_error", "model_not_found"),
    (errors.PayloadTooLarge("Bad."), 413, "invalid_request_error", "image_too_large"),
    (errors.Moderated("Bad."), 400, "image_generation_user_error", "moderation_blocked"),
    (errors.TooManyRequests("Bad."), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.RenderFailed("Bad."), 500, "server_error", "generation_failed"),
    (errors.DatabaseUnavailable("Bad."), 503, "service_unavailable", "upstream_unavailable"),
    (errors.StillRendering("Bad.", job=uuid4()), 504, "timeout_error", "still_rendering"),
)


@pytest.mark.parametrize(("error", "status", "kind", "code"), OPENAI, ids=[type(row[0]).__name__ for row in OPENAI])
def test_openai_words(error: FluxfarmError, status: int, kind: str, code: str) -> None:
    reply = openai_errors.error_reply(error, "r")
    found = reply.content["error"]
    assert (reply.status, found["type"], found["code"]) == (status, kind, code)
    assert found["message"].startswith("Bad.")
    assert found["param"] == error.param


def test_every_error_of_the_tree_has_words() -> None:
    for kind in tree():
        reply = openai_errors.error_reply(kind("Bad."), "r")
        assert 400 <= reply.status < 600, kind
        assert set(reply.content["error"]) == {"message", "type", "param", "code"}, kind


def test_what_a_client_must_not_send_again_says_so() -> None:
    def should_retry(error: FluxfarmError) -> str | None:
        return openai_errors.error_reply(error, "r").headers.get("x-should-retry")

    assert should_retry(errors.StillRendering("Bad.", job=uuid4())) == "false"
    assert should_retry(errors.RenderFailed("Bad.", job=uuid4())) == "false"
    assert should_retry(errors.ExternalIdTaken("Bad.")) == "false"
    assert should_retry(errors.IdempotencyInFlight("Bad.")) is None
    assert should_retry(errors.DatabaseUnavailable("Bad.")) is None
