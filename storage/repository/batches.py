"""OpenAI's batches: files, batches, and how far their lines are. Each query takes the tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import delete, func, select, text, tuple_, update
from sqlalchemy.orm import Session, undefer

from fluxfarm.errors import NotFound
from storage.batch_records import Batch, BatchFile
from storage.records import Job
from storage.repository import copying
from storage.repository.reading import WHOLE, load

COUNT: Final = text(
    """
    SELECT line.batch_id, count(*) AS total,
           count(*) FILTER (WHERE job.status = 'SUCCESS') AS completed,
           count(*) FILTER (WHERE line.refusal IS NOT NULL OR job.status IN ('FAILED', 'CANCELED')
                                  OR (line.job_uuid IS NULL AND line.refusal IS NULL)) AS failed,
           count(*) FILTER (WHERE job.status = 'CANCELED' AND job.error ->> 'code' = 'deadline') AS late,
           min(job.started_at) AS started_at, max(job.finished_at) AS finished_at
      FROM batches AS held JOIN batch_lines AS line ON line.batch_id = held.id
      LEFT JOIN jobs AS job ON job.uuid = line.job_uuid AND job.tenant_id = held.tenant_id
     WHERE held.tenant_id = :tenant_id AND held.id = ANY (:ids) GROUP BY line.batch_id
    """
)
LINES: Final = text(
    "SELECT n, custom_id, job_uuid, refusal FROM batches AS held JOIN batch_lines AS line ON line.batch_id = held.id"
    " WHERE held.tenant_id = :tenant_id AND held.id = :id AND n > :after ORDER BY n LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class NewLine:
    """A call that became a job, or one that was refused."""

    n: int
    custom_id: str
    job_uuid: UUID | None
    refusal: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a batch is."""

    total: int
    completed: int
    failed: int
    late: int  #: of those that failed: they had not begun by the deadline
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to any line."""
        return self.total == self.completed + self.failed


NOTHING: Final = Tally(0, 0, 0, 0, None, None)


def keep_file(session: Session, row: BatchFile) -> BatchFile:
    """Keep a file."""
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def read_file(session: Session, tenant_id: UUID, file_id: str, *, with_body: bool = False) -> BatchFile:
    """A file of the tenant.

    Raises:
        NotFound: no such file.
    """
    query = select(BatchFile).where(BatchFile.tenant_id == tenant_id, BatchFile.id == file_id)
    if with_body:
        query = query.options(undefer(BatchFile.body))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFound(f"There is no file {file_id[:64]!r}.", param="file_id")
    return found


def list_files(session: Session, tenant_id: UUID, *, after: str | None, limit: int) -> list[BatchFile]:
    """The tenant's files, the newest first, those behind ``after``."""
    query = select(BatchFile).where(BatchFile.tenant_id == tenant_id)
    if after is not None:
        last = read_file(session, tenant_id, after)
        query = query.where(tuple_(BatchFile.created_at, BatchFile.id) < (last.created_at, last.id))
    return list(session.scalars(query.order_by(BatchFile.created_at.desc(), BatchFile.id.desc()).limit(limit)))


def erase_file(session: Session, tenant_id: UUID, file_id: str) -> None:
    """Forget a file; batches that were made of it go on."""
    read_file(session, tenant_id, file_id)
    session.execute(delete(BatchFile).where(BatchFile.tenant_id == tenant_id, BatchFile.id == file_id))


def create(session: Session, batch: Batch, lines: Iterable[NewLine]) -> Batch:
    """Store a batch and its lines; their jobs must be there."""
    session.add(batch)
    session.flush()
    rows = (
        (batch.id, one.n, one.custom_id, one.job_uuid, None if one.refusal is None else Jsonb(one.refusal))
        for one in lines
    )
    copying.copy_rows(session, "batch_lines", ("batch_id", "n", "custom_id", "job_uuid", "refusal"), rows)
    session.refresh(batch)
    return batch


def read(session: Session, tenant_id: UUID, batch_id: str) -> Batch:
    """A batch of the tenant.

    Raises:
        NotFound: no such batch.
    """
    found = session.scalars(select(Batch).where(Batch.tenant_id == tenant_id, Batch.id == batch_id)).one_or_none()
    if found is None:
        raise NotFound(f"There is no batch {batch_id[:64]!r}.", param="batch_id")
    return found


def list_page(session: Session, tenant_id: UUID, *, after: str | None, limit: int) -> list[Batch]:
    """The tenant's batches, the newest first, those behind ``after``."""
    query = select(Batch).where(Batch.tenant_id == tenant_id)
    if after is not None:
        last = read(session, tenant_id, after)
        query = query.where(tuple_(Batch.created_at, Batch.id) < (last.created_at, last.id))
    return list(session.scalars(query.order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit)))


def note_cancel(session: Session, batch: Batch) -> None:
    """The caller ended it."""
    session.execute(
        update(Batch)
        .where(Batch.tenant_id == batch.tenant_id, Batch.id == batch.id)
        .values(cancelled_at=func.coalesce(Batch.cancelled_at, func.now()))
    )
    session.refresh(batch)


def tallies(session: Session, tenant_id: UUID, ids: Sequence[str]) -> dict[str, Tally]:
    """How far these batches of the tenant are, counted from their jobs; one without lines is over."""
    rows = session.execute(COUNT, {"tenant_id": tenant_id, "ids": list(ids)})
    return dict.fromkeys(ids, NOTHING) | {row.batch_id: Tally(*row[1:]) for row in rows}


def lines(session: Session, batch: Batch, *, after: int, limit: int) -> list[tuple[NewLine, Job | None]]:
    """The next lines, each with its job."""
    asked = {"tenant_id": batch.tenant_id, "id": batch.id, "after": after, "limit": limit}
    found = [NewLine(*row) for row in session.execute(LINES, asked)]
    wanted = [one.job_uuid for one in found if one.job_uuid is not None]
    query = WHOLE.where(Job.tenant_id == batch.tenant_id, Job.uuid.in_(wanted))
    jobs = {job.uuid: job for job in load(session, query)}
    return [(one, None if one.job_uuid is None else jobs.get(one.job_uuid)) for one in found]
