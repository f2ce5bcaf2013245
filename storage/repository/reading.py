"""A job with its attempts and images in one round trip: what every poll asks for."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import JSON, Column, Enum, Select, inspect, literal_column, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from fluxfarm.jobs import JobState
from storage.records import Attempt, Base, Image, Job

AnyRow = TypeVar("AnyRow", bound=Base)

ATTEMPTS: Final = literal_column(
    """(SELECT coalesce(json_agg(json_build_object(
           'number', number, 'provider', provider, 'worker', worker, 'model_revision', model_revision, 'status', status,
           'seeds', seeds, 'effective', effective, 'ignored', ignored, 'model', model, 'route', route,
           'parameters', parameters, 'batch', batch, 'device', device, 'timings', timings, 'cost', cost::text,
           'error', error, 'swept', swept, 'started_at', started_at, 'ended_at', ended_at) ORDER BY number), '[]')
          FROM attempts WHERE job_uuid = jobs.uuid)""",
    JSON,
).label("attempts_json")
IMAGES: Final = literal_column(
    """(SELECT coalesce(json_agg(json_build_object(
           'n', n, 'attempt', attempt, 'object_key', object_key, 'seed', seed, 'width', width, 'height', height,
           'content_type', content_type, 'size_bytes', size_bytes, 'sha256', sha256) ORDER BY n), '[]')
          FROM images WHERE job_uuid = jobs.uuid)""",
    JSON,
).label("images_json")

Whole = Select[Job, Any, Any]
WHOLE: Final[Whole] = select(Job, ATTEMPTS, IMAGES).execution_options(populate_existing=True)


def load(session: Session, query: Whole, parameters: dict[str, Any] | None = None) -> list[Job]:
    """The jobs of a query that began as ``WHOLE``, each with its attempts and images."""
    return [whole(*row) for row in session.execute(query, parameters or {})]


class Rows:
    """The jobs in the rows that a bare driver gives for a statement that began as ``WHOLE``.

    They are what the ORM would load, but nobody tracks them. The driver makes every value but words of an enumeration.
    """

    def __init__(self, query: Select[Any, *tuple[Any, ...]]) -> None:
        """The driver must give values as SQLAlchemy's own dialect for it has them."""
        table = inspect(Job)
        columns = [one for one in query.selected_columns if isinstance(one, Column) and one.table is table.local_table]
        self._names = [table.get_property_by_column(column).key for column in columns]
        self._words = {
            one.key: one.type.enum_class for one in columns if isinstance(one.type, Enum) and one.type.enum_class
        }
        self._width = len(columns)

    def job(self, row: tuple[Any, ...]) -> Job:
        """The job of a row."""
        values = dict(zip(self._names, row[: self._width], strict=True))
        for name, kind in self._words.items():
            values[name] = kind[values[name]]
        return whole(loaded(Job, values), *row[self._width : self._width + 2])

    def rest(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """What was asked for beside the job."""
        return row[self._width + 2 :]


def loaded(kind: type[AnyRow], values: dict[str, Any]) -> AnyRow:
    """An object with the values of a row, which nobody tracks: its constructor would note each one as a change."""
    made = inspect(kind).class_manager.new_instance()
    assert isinstance(made, kind)
    made.__dict__.update(values)
    return made


def whole(job: Job, attempts: list[dict[str, Any]], images: list[dict[str, Any]]) -> Job:
    """A job with what ``ATTEMPTS`` and ``IMAGES`` found."""
    set_committed_value(job, "attempts", [_attempt(job.uuid, one) for one in attempts])
    set_committed_value(job, "images", [loaded(Image, {"job_uuid": job.uuid, **one}) for one in images])
    return job


def _attempt(job_uuid: UUID, columns: dict[str, Any]) -> Attempt:
    columns["status"] = JobState(columns["status"])
    columns["started_at"] = datetime.fromisoformat(columns["started_at"])
    if columns["ended_at"] is not None:
        columns["ended_at"] = datetime.fromisoformat(columns["ended_at"])
    if columns["cost"] is not None:
        columns["cost"] = Decimal(columns["cost"])
    return loaded(Attempt, {"job_uuid": job_uuid, **columns})
