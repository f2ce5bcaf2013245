"""What is kept no longer: prompts, pictures and records of jobs that are over, uploaded references, texts of campaigns.

Everything goes by the database's clock and in bounded steps. Only jobs in a final state are touched, so no running
attempt is; objects go later, by way of ``erasures`` and ``leftovers``, when no open job and no campaign needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from storage.repository import ledger

Kind = Literal["prompt", "references", "results", "record"]

LONGEST_CALL: Final = 3_600.0  #: seconds; no call stores what it put so long before
LONGEST: Final = 36_500  #: days; more is no date of the database
SCRUBBED: Final = "The message was erased with the prompt."  #: a provider may have quoted the prompt
UNTIL: Final[dict[Kind, str]] = {
    "prompt": f"now() - least(coalesce(tenants.prompt_days, :usual), {LONGEST}) * interval '1 day'",
    "references": f"now() - least(coalesce(tenants.reference_hours, :usual), 24 * {LONGEST}) * interval '1 hour'",
    "results": f"now() - least(coalesce(tenants.result_days, :usual), {LONGEST}) * interval '1 day'",
    "record": f"now() - least(coalesce(tenants.record_days, :usual), {LONGEST}) * interval '1 day'",
}
COLUMN: Final[dict[Kind, str]] = {
    "prompt": "prompt_days",
    "references": "reference_hours",
    "results": "result_days",
    "record": "record_days",
}
BEYOND: Final = """
    jobs.tenant_id = tenants.id AND jobs.finished_at <= {until}
    AND (jobs.finished_at, jobs.seq) > (coalesce(mark.finished_at, 'epoch'), coalesce(mark.seq, 0))
"""
DUE: Final = """
    SELECT tenants.id FROM tenants
      LEFT JOIN retention_marks AS mark ON mark.tenant_id = tenants.id AND mark.kind = :kind
     WHERE coalesce(tenants.{column}, :usual) > 0 AND EXISTS (SELECT FROM jobs WHERE {beyond})
     LIMIT :limit
"""
OPEN_MARK: Final = text(
    """
    INSERT INTO retention_marks (tenant_id, kind) SELECT :tenant_id, :kind
     WHERE NOT EXISTS (SELECT FROM retention_marks WHERE tenant_id = :tenant_id AND kind = :kind)
        ON CONFLICT DO NOTHING
    """
)
TAKE: Final = """
    WITH mark AS MATERIALIZED (
        SELECT * FROM retention_marks WHERE tenant_id = :tenant_id AND kind = :kind FOR UPDATE SKIP LOCKED
    ),
    due AS MATERIALIZED (
        SELECT jobs.uuid, jobs.finished_at, jobs.seq
          FROM mark JOIN tenants ON tenants.id = mark.tenant_id JOIN jobs ON {beyond}
         WHERE coalesce(tenants.{column}, :usual) > 0
         ORDER BY jobs.finished_at, jobs.seq LIMIT :limit
    ),
    moved AS (
        UPDATE retention_marks SET finished_at = last.finished_at, seq = last.seq
          FROM (SELECT finished_at, seq FROM due ORDER BY finished_at DESC, seq DESC LIMIT 1) AS last
         WHERE tenant_id = :tenant_id AND kind = :kind
    )
    SELECT uuid FROM due
"""
BLANK: Final = tuple(
    text(statement)
    for statement in (
        """
        UPDATE jobs
           SET request = request || '{"prompt": "", "options": {}}', prompt_object = '{}', revised_prompt = NULL,
               error = CASE WHEN error IS NULL THEN NULL
                            ELSE jsonb_set(error, '{message}', to_jsonb(CAST(:scrubbed AS text))) END,
               erased = array_append(erased, 'prompt')
         WHERE uuid = ANY (:uuids)
        """,
        """
        UPDATE attempts SET error = jsonb_set(error, '{message}', to_jsonb(CAST(:scrubbed AS text)))
         WHERE job_uuid = ANY (:uuids) AND error IS NOT NULL
        """,
        """
        UPDATE events SET payload = jsonb_set(payload, '{error,message}', to_jsonb(CAST(:scrubbed AS text)))
         WHERE job_uuid = ANY (:uuids) AND payload -> 'error' ->> 'message' IS NOT NULL
        """,
    )
)
DROP_REFERENCES: Final = text(
    """
    WITH own AS (
        UPDATE jobs SET erased = array_append(erased, 'references')
         WHERE uuid = ANY (:uuids) AND type = 'IMAGE_EDITOR'
        RETURNING uuid, tenant_id, request -> 'references' AS keys, 't/' || tenant_id || '/' || uuid || '/0/' AS path
    )
    INSERT INTO leftovers (path, tenant_id)
    SELECT path, tenant_id FROM own
     WHERE EXISTS (SELECT FROM jsonb_array_elements_text(keys) AS key WHERE starts_with(key, path))
        ON CONFLICT (path) DO UPDATE SET since = now()
    """
)
DROP_RESULTS: Final = text(
    """
    WITH pictures AS (DELETE FROM images WHERE job_uuid = ANY (:uuids) RETURNING job_uuid, attempt),
    emptied AS (
        UPDATE jobs SET erased = array_append(erased, 'results')
         WHERE uuid IN (SELECT job_uuid FROM pictures)
        RETURNING uuid, tenant_id
    )
    INSERT INTO leftovers (path, tenant_id)
    SELECT DISTINCT 't/' || tenant_id || '/' || uuid || '/' || attempt || '/', tenant_id
      FROM emptied JOIN pictures ON job_uuid = uuid ON CONFLICT DO NOTHING
    """
)
DROP_RECORDS: Final = text(
    """
    WITH gone AS (DELETE FROM jobs WHERE uuid = ANY (:uuids) RETURNING uuid, tenant_id)
    INSERT INTO erasures (job_uuid, tenant_id) SELECT uuid, tenant_id FROM gone ON CONFLICT DO NOTHING
    """
)
#: pictures that campaigns may still need: a campaign keeps them as long as its own prompt, and then can render no more
HELD: Final = """
    held AS MATERIALIZED (
        SELECT campaigns.tenant_id, picture.value ->> 'key' AS path
          FROM campaigns, jsonb_each(campaigns.references) AS picture WHERE campaigns.wish <> 'cancel'
    )
"""
NEEDED: Final = """
    EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = {row}.tenant_id AND jobs.type = 'IMAGE_EDITOR'
                               AND jobs.status IN ('QUEUED','RUNNING')
                               AND jobs.request -> 'references' @> to_jsonb({row}.{path}))
    OR EXISTS (SELECT FROM held WHERE held.tenant_id = {row}.tenant_id AND held.path = {row}.{path})
"""
DROP_UPLOADS: Final = text(
    f"""
    WITH {HELD},
    due AS MATERIALIZED (
        SELECT row.id FROM tenants JOIN reference_images AS row ON row.tenant_id = tenants.id
         WHERE coalesce(tenants.reference_hours, :usual) > 0 AND row.created_at <= {UNTIL["references"]}
           AND NOT ({NEEDED.format(row="row", path="object_key")})
         LIMIT :limit FOR UPDATE OF row SKIP LOCKED
    ),
    gone AS (
        DELETE FROM reference_images USING due WHERE reference_images.id = due.id
        RETURNING reference_images.object_key, reference_images.tenant_id
    )
    INSERT INTO leftovers (path, tenant_id) SELECT object_key, tenant_id FROM gone
    ON CONFLICT (path) DO UPDATE SET since = now()
    """  # noqa: S608 - no value is put into the text
)
DROP_FILES: Final = text(
    f"""
    DELETE FROM batch_files USING tenants
     WHERE tenants.id = batch_files.tenant_id AND coalesce(tenants.prompt_days, :usual) > 0
       AND batch_files.created_at <= {UNTIL["prompt"]}
    """  # noqa: S608
)
#: the last job of a campaign must have ended that long ago
BLANK_CAMPAIGNS: Final = text(
    f"""
    WITH blanked AS (
        UPDATE campaigns
           SET spec = spec || '{{"prompt": "(erased)", "defaults": {{}}, "locales": {{}}, "axes": {{}},
                                "references": [], "files": {{}}}}',
               "references" = '{{}}'
          FROM tenants
         WHERE tenants.id = campaigns.tenant_id AND coalesce(tenants.prompt_days, :usual) > 0
           AND campaigns.created_at <= {UNTIL["prompt"]} AND campaigns.spec ->> 'prompt' <> '(erased)'
           AND NOT EXISTS (
               SELECT FROM jobs WHERE jobs.tenant_id = campaigns.tenant_id AND jobs.campaign = campaigns.name
                  AND jobs.campaign <> '' AND (jobs.finished_at IS NULL OR jobs.finished_at > {UNTIL["prompt"]}))
        RETURNING campaigns.id
    )
    UPDATE campaign_assets SET values = '{{}}' FROM blanked WHERE campaign_assets.campaign_id = blanked.id
    """  # noqa: S608
)
#: campaigns and batches all of whose jobs are gone
DROP_EMPTY: Final = tuple(
    text(
        f"""
        DELETE FROM {table} USING tenants
         WHERE tenants.id = {table}.tenant_id AND coalesce(tenants.record_days, :usual) > 0
           AND {table}.created_at <= {UNTIL["record"]}
           AND NOT EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = {table}.tenant_id AND jobs.campaign <> ''
                              AND jobs.campaign = {table}.{name})
        """  # noqa: S608
    )
    for table, name in (("campaigns", "name"), ("batches", "id"))
)
FORESEE: Final = text(
    """
    INSERT INTO leftovers (path, tenant_id, since)
    VALUES (:path, :tenant_id, now() + make_interval(secs => :seconds)) ON CONFLICT DO NOTHING
    """
)
#: what was noted before it was put, and is known by now: the pictures of an upload, of a campaign, of a job of its own
KNOWN: Final = tuple(
    text(f"DELETE FROM leftovers AS row USING {found} AND row.since < now() - make_interval(secs => :older_than)")  # noqa: S608
    for found in (
        "reference_images AS kept WHERE kept.tenant_id = row.tenant_id AND kept.object_key = row.path",
        """
        jobs WHERE row.path LIKE '%/0/' AND NOT 'references' = ANY (jobs.erased)
               AND jobs.uuid = CASE WHEN row.path LIKE '%/0/' THEN CAST(split_part(row.path, '/', 3) AS uuid) END
        """,
    )
)
LEFT: Final = text(
    f"""
    WITH {HELD}
    SELECT row.path FROM leftovers AS row
     WHERE row.since < now() - make_interval(secs => :older_than)
       AND (row.path LIKE '%/' OR NOT ({NEEDED.format(row="row", path="path")}))
     ORDER BY random() LIMIT :limit
    """  # noqa: S608
)


def _statement(template: str, kind: Kind) -> Any:
    return text(template.format(column=COLUMN[kind], beyond=BEYOND.format(until=UNTIL[kind])))


DUES: Final = {kind: _statement(DUE, kind) for kind in COLUMN}
TAKES: Final = {kind: _statement(TAKE, kind) for kind in COLUMN}


def due(session: Session, kind: Kind, usual: int, *, limit: int) -> list[UUID]:
    """Tenants with jobs whose time is over; ``usual`` is what holds for tenants that have no number of their own."""
    return list(session.scalars(DUES[kind], {"kind": kind, "usual": usual, "limit": limit}))


def erase(session: Session, kind: Kind, tenant_id: UUID, usual: int, *, limit: int) -> int:
    """Erase one kind of content of the tenant's jobs that ended first; gives how many jobs were looked at.

    0: none is due, or another scheduler is at it.
    """
    place = {"tenant_id": tenant_id, "kind": kind}
    session.execute(OPEN_MARK, place)
    uuids = list(session.scalars(TAKES[kind], place | {"usual": usual, "limit": limit}))
    if uuids:
        ACTIONS[kind](session, uuids)
    return len(uuids)


def _blank(session: Session, uuids: Sequence[UUID]) -> None:
    for statement in BLANK:
        wanted = {"uuids": uuids, "scrubbed": SCRUBBED}
        session.execute(statement, wanted)


def _drop_references(session: Session, uuids: Sequence[UUID]) -> None:
    session.execute(DROP_REFERENCES, {"uuids": uuids})


def _drop_results(session: Session, uuids: Sequence[UUID]) -> None:
    session.execute(DROP_RESULTS, {"uuids": uuids})


def _drop_records(session: Session, uuids: Sequence[UUID]) -> None:
    session.execute(DROP_RECORDS, {"uuids": uuids})
    ledger.close(session, *uuids)


ACTIONS: Final[dict[Kind, Callable[[Session, Sequence[UUID]], None]]] = {
    "prompt": _blank,
    "references": _drop_references,
    "results": _drop_results,
    "record": _drop_records,
}


def drop_uploads(session: Session, usual: int, *, limit: int) -> int:
    """Forget uploaded references that are old and that nothing needs; gives how many."""
    return _count(session, DROP_UPLOADS, {"usual": usual, "limit": limit})


def drop_texts(session: Session, usual: int) -> int:
    """Empty what has prompts beside the jobs: campaigns that are long over, and the files of batches."""
    return sum(_count(session, statement, {"usual": usual}) for statement in (BLANK_CAMPAIGNS, DROP_FILES))


def drop_empty(session: Session, usual: int) -> int:
    """Forget campaigns and batches that are old and have no job any more."""
    return sum(_count(session, statement, {"usual": usual}) for statement in DROP_EMPTY)


def foresee(session: Session, tenant_id: UUID, path: str) -> None:
    """Note an object or a folder before it is put: should its caller die, it goes, unless something needs it then."""
    session.execute(FORESEE, {"path": path, "tenant_id": tenant_id, "seconds": LONGEST_CALL})


def leftovers(session: Session, *, older_than: float, limit: int) -> list[str]:
    """Objects and folders that nothing needs any more; whoever knew of them when they were noted is done by now."""
    for statement in KNOWN:
        session.execute(statement, {"older_than": older_than})
    return list(session.scalars(LEFT, {"older_than": older_than, "limit": limit}))


def forget_leftovers(session: Session, paths: Sequence[str]) -> None:
    """They are gone."""
    session.execute(text("DELETE FROM leftovers WHERE path = ANY (:paths)"), {"paths": list(paths)})


def _count(session: Session, statement: Any, parameters: dict[str, Any]) -> int:
    result = session.execute(statement, parameters)
    assert isinstance(result, CursorResult)
    return result.rowcount
