"""A small campaign, and a worker's hand that renders all of it."""

from __future__ import annotations

from typing import Any

from httpx import Client
from starlette.testclient import TestClient

from tests.api.samples import SMALL, Hand, picture

ROWS = [{"sku": "A1", "product": "Olive oil"}, {"sku": "B2", "product": "Honey"}, {"sku": "C3", "product": "Salt"}]


def spec(**changes: Any) -> dict[str, Any]:
    """Three products in two sizes; what is None is left out."""
    made = {
        "name": "spring",
        "model": SMALL,
        "prompt": "{product} on a stone table",
        "rows": ROWS,
        "key": "sku",
        "placements": ["64x64", {"name": "wide", "size": "128x64"}],
        "output_format": "png",
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def make(api: TestClient | Client, **changes: Any) -> dict[str, Any]:
    """Store it and give its record."""
    reply = api.post("/v1/campaigns", json=spec(**changes))
    assert reply.status_code == 201, reply.text
    record: dict[str, Any] = reply.json()["campaign"]
    return record


def files(api: TestClient | Client, name: str = "spring", **wanted: Any) -> list[dict[str, Any]]:
    reply = api.get(f"/v1/campaigns/{name}/assets", params=wanted)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


def render(api: TestClient | Client, hand: Hand, name: str = "spring", *, but: set[str] | None = None) -> None:
    """Every open job of the campaign becomes a picture of its own; those of the names in ``but`` fail."""
    done = set()
    for number, one in enumerate(files(api, name, limit=1000)):
        if one["status"] != "QUEUED" or one["job"] in done:
            continue
        done.add(one["job"])
        claimed = hand.claim(one["job"])
        if one["name"] in (but or set()):
            hand.fail(claimed)
        else:
            hand.finish(claimed, (picture(64 + number, 64),))
