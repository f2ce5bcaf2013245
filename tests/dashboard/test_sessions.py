"""Who gets in, for how long, and who may write."""

from __future__ import annotations

import time

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.dashboard import sessions
from fluxfarm.scopes import Scope
from storage.database import Database
from storage.records import ApiKey, Tenant
from storage.repository import tenants
from tests.api.samples import body
from tests.dashboard.conftest import OURS, log_in
from tests.dashboard.test_pages import check_page


def test_without_a_session_every_page_leads_to_the_log_in_and_back(visitor: TestClient, api_key: str) -> None:
    asked = visitor.get("/dashboard/jobs?q=fox")
    assert (asked.status_code, asked.headers["location"]) == (303, "/dashboard/login?next=%2Fjobs%3Fq%3Dfox")
    form = visitor.get(asked.headers["location"])
    assert form.status_code == 200
    assert 'value="/jobs?q=fox"' in form.text
    reply = visitor.post("/dashboard/login", data={"key": f" {api_key}\n", "next": "/jobs?q=fox"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/dashboard/jobs?q=fox")
    assert visitor.get("/dashboard/jobs?q=fox").status_code == 200


def test_the_cookie_is_strict_and_does_not_show_the_key(visitor: TestClient, api_key: str) -> None:
    reply = visitor.post("/dashboard/login", data={"key": api_key})
    cookie = reply.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/dashboard", "Max-Age=43200")), cookie
    assert api_key not in cookie
    assert api_key[8:20] not in cookie


def test_a_wrong_key_is_told_so_and_gets_no_cookie(visitor: TestClient) -> None:
    for key in ("", "nonsense", "ff_live_" + "0" * 36, "ff_live_\x00", "k" * 300):
        reply = visitor.post("/dashboard/login", data={"key": key})
        assert reply.status_code in (400, 401), key
        assert "set-cookie" not in reply.headers, key
        assert "<h1>" in reply.text, key


def test_a_revoked_key_ends_the_session(
    browser: TestClient, database: Database, key_and_secret: tuple[ApiKey, str]
) -> None:
    assert browser.get("/dashboard/").status_code == 200
    with database.transaction() as session:
        tenants.revoke_key(session, key_and_secret[0].tenant_id, key_and_secret[0].id)
    gone = browser.get("/dashboard/")
    assert (gone.status_code, gone.headers["location"]) == (303, "/dashboard/login")
    assert browser.get("/dashboard/v1/jobs").status_code == 401


def test_a_form_after_the_session_is_told_what_to_do(visitor: TestClient) -> None:
    for path in ("/campaigns", "/playground", "/usage/keys"):
        page = visitor.post(f"/dashboard{path}", data={"prompt": "a cup"})
        assert page.status_code == 401, path
        assert "Log in: what you typed is kept in this tab" in page.text
        check_page(page)


def test_log_out_forgets_the_session(browser: TestClient) -> None:
    reply = browser.post("/dashboard/logout")
    assert (reply.status_code, reply.headers["location"]) == (303, "/dashboard/login")
    assert browser.get("/dashboard/").status_code == 303


def test_a_session_expires_and_cannot_be_made_up(
    visitor: TestClient, app: FastAPI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made_up in ("", "x", api_key, app.state.farm.sealer.seal(api_key), app.state.farm.sealer.seal('{"for": 1}')):
        visitor.cookies.set(sessions.COOKIE, made_up, path=sessions.PATH)
        assert visitor.get("/dashboard/").status_code == 303, made_up
    visitor.cookies.clear()
    log_in(visitor, api_key)
    now = time.time()
    monkeypatch.setattr("api.dashboard.sessions.time.time", lambda: now + sessions.LIFE + 1)
    assert visitor.get("/dashboard/").status_code == 303


def test_the_native_api_takes_no_cookie(browser: TestClient) -> None:
    cookie = browser.cookies[sessions.COOKIE]
    reply = browser.get("/v1/jobs", headers={"Cookie": f"{sessions.COOKIE}={cookie}"})
    assert reply.status_code == 401


ELSEWHERE: tuple[dict[str, str], ...] = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {},
)


def test_nothing_is_written_from_elsewhere(browser: TestClient) -> None:
    del browser.headers["Sec-Fetch-Site"]
    for path in ("/dashboard/v1/jobs", "/dashboard/login", "/dashboard/playground"):
        for sent in ELSEWHERE:
            assert browser.post(path, headers=sent, json=body()).status_code == 403, (path, sent)
    assert browser.get("/dashboard/v1/jobs", headers=OURS).json()["data"] == []


def test_an_old_browser_that_names_its_origin_may_write(browser: TestClient) -> None:
    del browser.headers["Sec-Fetch-Site"]
    reply = browser.post("/dashboard/v1/jobs", json=body(), headers={"Origin": "http://testserver"})
    assert reply.status_code == 202


def test_a_script_calls_the_native_api_with_the_session(browser: TestClient) -> None:
    made = browser.post("/dashboard/v1/jobs", json=body(), headers={"Authorization": "Bearer ff_live_wrong"})
    assert made.status_code == 202
    uuid = made.json()["aiRecord"]["uuid"]
    assert browser.get(f"/dashboard/v1/jobs/{uuid}").json()["aiRecord"]["status"] == "QUEUED"
    refused = browser.post("/dashboard/v1/jobs", json={"nonsense": 1})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("scopes", "status"), [([Scope.RENDER], 403), ([Scope.READ], 200), ([Scope.CAMPAIGNS, Scope.ADMIN], 403)]
)
def test_pages_need_the_scope_read(
    visitor: TestClient, database: Database, tenant: Tenant, scopes: list[Scope], status: int
) -> None:
    with database.transaction() as session:
        _, key = tenants.create_key(session, tenant.id, "few", scopes)
    log_in(visitor, key)
    for path in ("/", "/jobs", "/playground"):
        page = visitor.get(f"/dashboard{path}")
        assert page.status_code == status, path
        if status == 403:
            assert "lacks the scope &#39;read&#39;" in page.text
            assert 'action="/dashboard/logout"' in page.text


def test_a_link_from_elsewhere_comes_back_by_itself(visitor: TestClient) -> None:
    page = visitor.get("/dashboard/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 200
    assert 'http-equiv="refresh"' in page.text


def test_a_log_in_never_leads_to_another_host(visitor: TestClient, api_key: str) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "\n//evil.example"):
        reply = visitor.post("/dashboard/login", data={"key": api_key, "next": target})
        assert reply.headers["location"] == "/dashboard/", target
