"""What people do with a campaign on the command line, against a farm that listens: look, judge, pick, show, watch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from fluxfarm.campaigns.starter import FILES
from fluxfarm.cli import main
from storage.database import Database
from storage.records import Worker
from storage.repository import workers
from tests.api.campaigns_made import files, make, render, spec
from tests.api.samples import Hand
from tests.making import MODEL, QUEUE

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def farm(server: str, api_key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[httpx.Client]:
    monkeypatch.setenv("FLUXFARM_URL", server)
    monkeypatch.setenv("FLUXFARM_API_KEY", api_key)
    monkeypatch.chdir(tmp_path)
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {api_key}"}, trust_env=False) as client:
        yield client


@pytest.fixture
def shell(farm: httpx.Client, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert farm.is_closed is False

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["campaign", *arguments])
        return code, *capsys.readouterr()

    return run


def told(shell: Shell, *arguments: str) -> Any:
    code, out, err = shell(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_drafts_are_looked_at_judged_and_picked(farm: httpx.Client, hand: Hand, shell: Shell) -> None:
    make(farm, draft={"steps": 2})
    render(farm, hand)
    _, out, _ = shell("files", "spring", "--drafts", "--verdict", "none")
    assert out.count("drafts/") == 6
    good, dark = "drafts/a1-wide.png", "drafts/b2-wide.png"
    assert shell("review", "spring", "approve", good, "--author", "Ada", "--comment", "fine")[:2] == (0, "approve: 1\n")
    assert told(shell, "review", "spring", "regenerate", dark, "--seed", "9") == {"reviewed": 1}
    assert shell("review", "spring", "approve", "no-such.png")[0] == 4
    assert shell("review", "spring", "approve", good, "--seed", "1")[0] == 2
    _, out, _ = shell("reviews", "spring", "--file", good)
    assert "Ada" in out
    assert "fine" in out
    assert [one["verdict"] for one in told(shell, "reviews", "spring")["data"]] == ["approve", "regenerate"]
    assert shell("masters", "spring")[1] == "a1-wide.png\n"
    code, out, err = shell("masters", "spring")
    assert (code, out, err) == (0, "", "1 were there already.\n")
    assert told(shell, "masters", "spring", good, "--placement", "64x64") == {"made": ["a1-64x64.png"], "existing": []}
    assert {one["name"] for one in files(farm, drafts=False)} == {"a1-wide.png", "a1-64x64.png"}


def test_a_sheet_and_links_for_people_without_a_key(farm: httpx.Client, hand: Hand, shell: Shell) -> None:
    make(farm)
    assert shell("sheet", "spring")[0] == 2  # there is no picture yet
    render(farm, hand)
    assert shell("sheet", "spring")[:2] == (0, "spring.pdf\n")
    assert Path("spring.pdf").read_bytes().startswith(b"%PDF")
    assert shell("sheet", "spring")[0] == 2  # it exists
    assert told(shell, "sheet", "spring", "-o", "one.png")["bytes"] == Path("one.png").stat().st_size
    assert shell("sheet", "spring", "-o", "one.gif")[0] == 2
    assert shell("sheet", "spring", "-o", "two.png", "--page", "2")[0] == 2

    code, out, err = shell("share", "spring", "--days", "3")
    assert code == 0, err
    token = out.strip().rpartition("/")[2]
    assert len(farm.get(f"/shares/{token}", headers={"Authorization": ""}).json()["files"]) == 6
    (link,) = told(shell, "shares", "spring")["data"]
    assert f"unshare spring {link['id']}" in err
    left = datetime.fromisoformat(link["expiresAt"]) - datetime.now(UTC)
    assert timedelta(days=2.9) < left <= timedelta(days=3)
    assert "open until" in shell("shares", "spring")[1]
    assert shell("unshare", "spring", link["id"])[0] == 0
    assert farm.get(f"/shares/{token}").status_code == 403
    assert "closed" in shell("shares", "spring")[1]
    assert shell("unshare", "spring", str(uuid4()))[0] == 4


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(
    farm: httpx.Client, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fluxfarm.cli_campaign_watch.time.sleep", interrupt)
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")
    code, out, err = shell("run", "campaign.yaml")
    assert code == 130
    assert out == "running 0/12, 0 failed, 0 images/min, 0.00 USD\n"
    assert "The campaign goes on. Come back with: fluxfarm campaign watch first-campaign" in err
    assert "Hold it with: fluxfarm campaign pause first-campaign" in err
    assert farm.get("/v1/campaigns/first-campaign").json()["campaign"]["state"] == "running"
    assert shell("watch", "campaign.yaml")[0] == 130  # by its file, too


def test_the_end_is_told_from_what_renders_took(
    farm: httpx.Client, hand: Hand, database: Database, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(farm)
    assert farm.get("/v1/campaigns/spring").json()["campaign"]["eta"] is None  # nobody renders, nothing was measured
    with database.transaction() as session:
        workers.register(session, Worker(
            id=uuid4(), name="w", pid=1, provider="local", queues=[QUEUE], models=[MODEL], device="cpu", slots=2,
            state="ready",
        ))  # fmt: skip
    assert farm.get("/v1/campaigns/spring").json()["campaign"]["eta"] is None
    for one in files(farm)[:3]:
        hand.finish(hand.claim(one["job"]))  # 0.1 s each
    before = time.time()
    record = farm.get("/v1/campaigns/spring").json()["campaign"]
    eta = {name: datetime.fromisoformat(record["eta"][name]).timestamp() - before for name in ("p50", "p90")}
    assert record["eta"]["measured"] == 3
    assert 0 < eta["p50"] <= eta["p90"] < 60
    plan = farm.post("/v1/campaigns?dryRun=true", json=spec(name="summer")).json()["plan"]
    assert plan["eta"]["measured"] == 3
    late = spec(name="summer", deadline=(datetime.now(UTC) + timedelta(seconds=40)).isoformat(), variants=200)
    warned = farm.post("/v1/campaigns?dryRun=true", json=late).json()["plan"]["warnings"]
    assert any("will not be done by" in one for one in warned)
    monkeypatch.setattr("fluxfarm.cli_campaign_watch.time.sleep", lambda _: farm.post("/v1/campaigns/spring/cancel"))
    code, out, _ = shell("watch", "spring")
    assert code == 1  # canceled
    first, last = out.splitlines()
    assert first.startswith("running 3/6, 0 failed, ")
    assert first.endswith(" s left")
    assert last.startswith("cancelled 3/6")
