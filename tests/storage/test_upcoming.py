"""Who is likely next: a hint that locks and changes nothing."""

from __future__ import annotations

from uuid import uuid4

from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import dispatch
from storage.repository.upcoming import likely
from tests.making import QUEUE, make_job, make_request, read_job


def test_the_tickets_own_job_then_the_others_that_have_one(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant, request=make_request(prompt=f"prompt {n}")) for n in range(5)]
    with database.transaction() as session:
        for room in (1, 3):
            dispatch.pick(session, QUEUE, room)
        session.get_one(Job, made[3].uuid).revised_prompt = "a longer prompt"
    other = database
    with database.transaction() as session, other.transaction() as beside:
        found = [request.prompt for request in likely(session, QUEUE, made[2].uuid, 3)]
        assert found == ["prompt 2", "prompt 0", "prompt 1"]
        assert likely(session, QUEUE, uuid4(), 9)[3].prompt == "a longer prompt"
        assert likely(session, "local.other", made[2].uuid, 9) == []
        beside.get_one(Job, made[2].uuid, with_for_update={"nowait": True})
    assert read_job(database, made[2]).attempt == 0
