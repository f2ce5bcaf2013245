"""What is wrong with a campaign is said with its place, and nothing of it is left: no row, no object."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.errors import UnreachableUrl
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from tests.api.campaigns_made import make, spec
from tests.api.samples import picture, rows

PLACE = "https://shop.example.com/{sku}.png"


def fetch(url: str) -> bytes:
    """B2's picture is a page that says sorry, C3's server is away."""
    if "C3" in url:
        raise UnreachableUrl("Nobody answers.")
    return b"<html>not found" if "B2" in url else picture()


@pytest.fixture
def shop(settings: Settings, api_key: str) -> Iterator[TestClient]:
    priced = settings.model_copy(update={"gpu_second_price": Decimal(1)})
    with TestClient(create_app(priced, fetch=fetch), headers={"Authorization": f"Bearer {api_key}"}) as api:
        yield api


@pytest.mark.parametrize("query", ["?dryRun=true", ""])
@pytest.mark.parametrize(
    ("changes", "param", "word", "row"),
    [
        ({"references": [PLACE]}, "references", "B2.png' cannot be used", 2),
        ({"references": ["ref_AAAAAAAAAAAAAAAAAAAAAA"]}, "references", "there is no reference", 1),
        ({"references": ["logo.png"]}, "references", "upload the file", 1),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline", "has passed", None),
        ({"deadline": "tomorrow"}, "deadline", "RFC 3339", None),
        ({"budget": 0}, "budget", "greater than 0", None),
        ({"webhook": "http://10.0.0.1/x"}, "webhook", "", None),
        ({"webhook": "wh_AAAAAAAAAAAAAAAAAAAAAA"}, "webhook", "There is no webhook", None),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing(
    shop: TestClient,
    database: Database,
    store: ObjectStore,
    query: str,
    changes: dict[str, Any],
    param: str,
    word: str,
    row: int | None,
) -> None:
    reply = shop.post(f"/v1/campaigns{query}", json=spec(**changes))
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_campaign"), reply.text
    first = reply.json()["issues"][0]
    assert (first["param"], first.get("row")) == (param, row)
    assert word in first["message"]
    assert set(rows(database).values()) == {0}
    assert list(store.keys("t/")) == []
    assert shop.get("/v1/campaigns").json()["data"] == []


def test_all_pictures_that_cannot_be_read_are_told_at_once(shop: TestClient) -> None:
    issues = shop.post("/v1/campaigns", json=spec(references=[PLACE])).json()["issues"]
    assert [one["row"] for one in issues] == [2, 3]
    assert "Nobody answers." in issues[1]["message"]


def test_a_creation_that_fails_takes_its_pictures_back(
    shop: TestClient, database: Database, store: ObjectStore
) -> None:
    one = {"references": [PLACE], "rows": spec()["rows"][:1]}
    reply = shop.post("/v1/campaigns", json=spec(**one, budget="0.000001"))
    assert (reply.status_code, reply.json()["code"]) == (402, "budget_exceeded")
    assert set(rows(database).values()) == {0}
    assert list(store.keys("t/")) == []
    make(shop, **one, budget="100000")
    assert len(list(store.keys("t/"))) == rows(database)["reference_images"] == 1


def test_an_old_campaign_is_found_again_though_its_deadline_has_passed(shop: TestClient) -> None:
    made = make(shop)
    again = shop.post("/v1/campaigns", json=spec())
    assert (again.status_code, again.json()["campaign"]["id"]) == (200, made["id"])


def test_warnings_count_the_rows_that_they_are_of(shop: TestClient) -> None:
    long = "a lamp, " * 60
    feed = [{"sku": f"S{n}", "product": long if n % 2 else "Honey"} for n in range(1, 31)]
    plan = shop.post("/v1/campaigns?dryRun=true", json=spec(rows=feed)).json()["plan"]
    found = {one["param"]: one for one in plan["rowWarnings"]}
    assert found["prompt"]["rows"] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert found["prompt"]["total"] == 15
    assert "model" not in found  # these weights may be used for anything
