"""Every provider through the real worker: a job with a reference goes there and comes back as an aiRecord."""

from __future__ import annotations

import io
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from fluxfarm.catalog import DEV, PRO
from fluxfarm.settings import Settings
from storage.database import Database
from tests.money import assert_balanced
from tests.remote.office import opened
from tests.stubs import STUBS
from tests.stubs.cloudflare import ACCOUNT
from tests.stubs.server import KEY, serving


@dataclass(frozen=True)
class Case:
    """``name`` is the farm's name of the provider, ``stub`` the one that speaks its protocol."""

    name: str
    stub: str
    model: str
    usd: str
    prompt: str = "a red fox"

    @property
    def is_named_endpoint(self) -> bool:
        return self.stub not in {"fal", "replicate", "bfl", "cloudflare", "onemin"}


CASES = [
    Case("fal", "fal", DEV.slug, "0.024"),
    Case("replicate", "replicate", DEV.slug, "0.024", "a fox [slow] [early-output]"),
    Case("bfl", "bfl", PRO.slug, "0.045"),  # as it reports itself
    Case("cloudflare", "cloudflare", DEV.slug, "0.01736"),  # a tile out, a tile in, 28 steps
    Case("onemin", "onemin", DEV.slug, "0.012"),
    Case("lumenfall", "lumenfall", DEV.slug, "0.024"),
    Case("aigateway", "aigateway", DEV.slug, "0.024", "a fox [later]"),
    Case("together", "together", DEV.slug, "0.024", "a fox [link]"),
    Case("deepinfra", "deepinfra", DEV.slug, "0.0025"),
    Case("studio", "openai", DEV.slug, "0.25", "a fox [still-rendering]"),  # another Fluxfarm, by its own account
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_edit_goes_there_and_comes_back(settings: Settings, database: Database, api_key: str, case: Case) -> None:
    stub = STUBS[case.stub]()
    changes: dict[str, Any] = {"cloudflare_account": ACCOUNT}
    with serving(stub) as url:
        if case.is_named_endpoint:
            changes["openai_endpoints"] = SecretStr(f"{case.name}={url}/v1={KEY}")
        else:
            changes |= {f"{case.name}_url": url, f"{case.name}_key": SecretStr(KEY)}
        with opened(settings, database, api_key, **changes) as office:
            picture = io.BytesIO()
            Image.new("RGB", (640, 480), "red").save(picture, "PNG")
            reference = office.api.post("/v1/references", files={"file": picture.getvalue()}).json()["id"]
            asked = {"images": [reference], "size": "500x500", "output_format": "webp"}
            wish = {"model": case.model, "provider": case.name, "type": "IMAGE_EDITOR"}
            record = office.render(case.prompt, prompt_object=asked, **wish)
            assert record["status"] == "SUCCESS", record
            with Image.open(io.BytesIO(office.api.get(record["temporaryUrl"]).content)) as drawn:
                assert (drawn.format, drawn.size) == ("WEBP", (500, 500))
            (attempt,) = record["attempts"]
            assert (attempt["provider"], attempt["error"]) == (case.name, None)
            assert attempt["parameters"]["size"]["behaviour"] == "converted"
            assert Decimal(record["cost"]) == Decimal(case.usd)
            assert KEY not in str(record)
            assert url not in str(record)
    assert (stub.submits, stub.accepted, stub.last.references, stub.leaks) == (1, 1, 1, [])
    assert_balanced(database)
