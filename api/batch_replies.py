"""A batch as OpenAI's clients see it, and where its results are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from storage.batch_records import Batch
from storage.database import Session
from storage.repository import batches
from storage.repository.batches import Tally

OUTPUT, FAILED = "-output", "-errors"  #: how the ids of its files end


class RequestCounts(BaseModel):
    """How far it is."""

    total: int
    completed: int
    failed: int


class Mistake(BaseModel):
    """What is wrong with a line of the file."""

    code: str
    message: str
    param: str | None
    line: int | None


class Mistakes(BaseModel):
    """Why the file was refused."""

    object: Literal["list"] = "list"
    data: list[Mistake]


class BatchReply(BaseModel):
    """A batch as it stands now."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: Mistakes | None
    input_file_id: str
    completion_window: str
    status: Literal["failed", "in_progress", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def told(session: Session, row: Batch) -> BatchReply:
    """A batch as it stands now."""
    return told_all(session, row.tenant_id, [row])[0]


def told_all(session: Session, tenant_id: UUID, rows: Sequence[Batch]) -> list[BatchReply]:
    """Batches of the tenant, with one query for all."""
    tallies = batches.tallies(session, tenant_id, [row.id for row in rows])
    return [_reply(row, tallies[row.id]) for row in rows]


def _reply(row: Batch, tally: Tally) -> BatchReply:
    status, ended = "in_progress", tally.finished_at or row.created_at
    if row.errors is not None:
        status = "failed"
    elif row.cancelled_at is not None:
        status = "cancelled" if tally.is_over else "cancelling"
    elif tally.is_over:
        status = "expired" if tally.late else "completed"
    over = status in ("completed", "expired", "cancelled")
    return BatchReply(
        id=row.id,
        endpoint=row.endpoint,
        errors=None if row.errors is None else Mistakes(data=[Mistake(**one) for one in row.errors]),
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=status,
        output_file_id=f"file-{row.id}{OUTPUT}" if over and tally.completed else None,
        error_file_id=f"file-{row.id}{FAILED}" if over and tally.failed else None,
        created_at=int(row.created_at.timestamp()),
        in_progress_at=_seconds(tally.started_at),
        expires_at=int(row.expires_at.timestamp()),
        completed_at=_seconds(ended) if status == "completed" else None,
        failed_at=_seconds(row.created_at) if status == "failed" else None,
        expired_at=_seconds(row.expires_at) if status == "expired" else None,
        cancelling_at=_seconds(row.cancelled_at),
        cancelled_at=_seconds(ended) if status == "cancelled" else None,
        request_counts=RequestCounts(total=tally.total, completed=tally.completed, failed=tally.failed),
        metadata=row.notes or None,
    )
