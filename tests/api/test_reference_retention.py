"""Pictures from callers: kept while something needs them, and swept when nothing does."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from api import outside_pictures
from api.farm import Farm
from api.submit import OUTSIDE, all_or_nothing
from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database
from storage.objects import ObjectStore, object_key
from storage.pictures import sanitise
from storage.records import Tenant
from tests.api.campaigns_made import make
from tests.api.canary import age, keep, objects, record, upload
from tests.api.samples import Hand, body, picture
from tests.api.test_references import data_uri
from workers.cleaning import Cleaner
from workers.retention import Retention


def test_references_stay_while_something_needs_them(
    api: TestClient, database: Database, store: ObjectStore, retention: Retention, cleaner: Cleaner
) -> None:
    used, unused = upload(api, 80), upload(api, 96)
    asked = {"prompt": "like this", "images": [used], "size": "64x64"}
    waiting = api.post("/v1/jobs", json=body(asked, type="IMAGE_EDITOR")).json()["aiRecord"]["uuid"]
    age(database, 2)
    retention.erase_now()
    cleaner.leftovers()
    assert objects(store) == 1, "the one that the waiting job needs"
    refused = api.post("/v1/jobs", json=body(asked | {"images": [unused]}, type="IMAGE_EDITOR"))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_reference")
    assert api.post(f"/v1/jobs/{waiting}/cancel").status_code == 200
    retention.erase_now()
    cleaner.leftovers()
    assert objects(store) == 0


def test_an_object_is_not_deleted_under_a_job_that_came_meanwhile(
    api: TestClient, database: Database, store: ObjectStore, cleaner: Cleaner
) -> None:
    """The job was accepted while its reference was being forgotten: it knew the key already."""
    reference = upload(api)
    asked = {"prompt": "like this", "images": [reference], "size": "64x64"}
    assert api.post("/v1/jobs", json=body(asked, type="IMAGE_EDITOR")).status_code == 202
    assert api.delete(f"/v1/references/{reference}").status_code == 204
    assert api.delete(f"/v1/references/{reference}").status_code == 404
    cleaner.leftovers()
    assert objects(store) == 1
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 'CANCELED', finished_at = now()"))
    cleaner.leftovers()
    assert objects(store) == 0


def test_what_was_put_for_a_call_that_died_goes_and_what_was_stored_stays(
    api: TestClient, app: FastAPI, tenant: Tenant, database: Database, store: ObjectStore, cleaner: Cleaner
) -> None:
    """As after a SIGKILL between the upload and the commit: nobody is left to take the pictures away again."""
    farm: Farm = app.state.farm
    kept, lost = sanitise(picture(80)), uuid4()
    with suppress(DatabaseUnavailable), outside_pictures.keeping(farm, tenant.id) as keeper:
        keeper.keep(kept)
        raise DatabaseUnavailable("Nobody knows.", may_be_done=True)
    with suppress(DatabaseUnavailable), all_or_nothing(farm, tenant.id, lost):
        store.put(object_key(tenant.id, lost, OUTSIDE, 0, "png"), kept.png, "image/png")
        raise DatabaseUnavailable("Nobody knows.", may_be_done=True)
    asked = {"prompt": "like this", "images": [upload(api), data_uri(picture())], "size": "64x64"}
    assert api.post("/v1/jobs", json=body(asked, type="IMAGE_EDITOR")).status_code == 202
    cleaner.leftovers()
    assert objects(store) == 4, "the callers may be at it still"
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE leftovers SET since = now() - interval '1 hour'"))
    cleaner.leftovers()
    assert objects(store) == 2
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM leftovers")) == 0


def test_pictures_that_came_with_a_job_go_some_hours_after_its_end(
    api: TestClient, database: Database, store: ObjectStore, hand: Hand, retention: Retention, cleaner: Cleaner
) -> None:
    inline = data_uri(picture())
    asked = {"prompt": "like this", "images": [inline], "size": "64x64"}
    uuid = api.post("/v1/jobs", json=body(asked, type="IMAGE_EDITOR")).json()["aiRecord"]["uuid"]
    age(database, 2)
    retention.erase_now()
    cleaner.leftovers()
    assert objects(store) == 1
    hand.finish(hand.claim(uuid))
    age(database, 2)
    retention.erase_now()
    cleaner.leftovers()
    assert (objects(store), record(api, uuid)["erased"]) == (1, ["references"]), "the result"
    assert api.get(f"/v1/assets/{uuid}/0").status_code == 302


def test_the_pictures_of_a_job_go_before_its_own_references(
    api: TestClient, database: Database, store: ObjectStore, hand: Hand, retention: Retention, cleaner: Cleaner
) -> None:
    keep(database, result_days=1, reference_hours=0)
    asked = {"prompt": "like this", "images": [data_uri(picture())], "size": "64x64"}
    uuid = api.post("/v1/jobs", json=body(asked, type="IMAGE_EDITOR")).json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(uuid))
    assert objects(store) == 2
    age(database, 2)
    retention.erase_now()
    cleaner.leftovers()
    cleaner.of_jobs()
    assert record(api, uuid)["erased"] == ["results"]
    assert [key.split("/")[3] for key in store.keys("t/")] == ["0"], "the reference is kept until it is erased"


def test_the_same_picture_again_is_kept_as_long_as_a_new_one(
    api: TestClient, database: Database, retention: Retention
) -> None:
    first = upload(api)
    age(database, 0.9)
    assert upload(api) == first
    age(database, 0.9)
    retention.erase_now()
    assert upload(api) == first


def test_nobody_erases_what_is_anothers(api: TestClient, other_key: str) -> None:
    reference = upload(api)
    make(api)
    theirs = {"Authorization": f"Bearer {other_key}"}
    assert api.delete(f"/v1/references/{reference}", headers=theirs).status_code == 404
    assert api.delete("/v1/campaigns/spring", headers=theirs).status_code == 404
    assert api.delete(f"/v1/references/{uuid4()}").status_code == 404
    assert api.get("/v1/campaigns/spring").status_code == 200
