"""Bodies, pictures and a worker's hand for the tests of the API."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from PIL import Image as Pillow
from sqlalchemy import func, select

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from storage.database import Database
from storage.objects import ObjectStore, object_key
from storage.records import Attempt, Base, Event, Image, Job, Reference
from storage.repository import attempts, turns
from storage.repository.progress import Progress, report
from storage.repository.turns import Claim, Claimant

SMALL = "fluxfarm/flux-2-klein-small"
BROKEN = Problem(code="render_failed", message="The pipeline raised.", retryable=False)


def body(prompt_object: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A job's body; ``prompt_object`` is merged into the smallest one."""
    asked = {"prompt": "a fox", "size": "64x64", **(prompt_object or {})}
    return {"type": "IMAGE_GENERATOR", "model": SMALL, "promptObject": asked, **changes}


def picture(width: int = 96, height: int = 64, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (width, height), (200, 120, 40)).save(out, kind)
    return out.getvalue()


def rows(database: Database) -> dict[str, int]:
    """How much is stored, by table."""
    kept: tuple[type[Base], ...] = (Job, Attempt, Image, Event, Reference)
    with database.transaction() as session:
        return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in kept}


@dataclass(frozen=True)
class Hand:
    """Does what a worker does to a job, without rendering."""

    database: Database
    store: ObjectStore
    lease: float = 30.0

    def claim(self, uuid: str | UUID) -> Claim:
        with self.database.transaction() as session:
            claimant = Claimant(worker_id=uuid4(), worker="hand", provider="local", lease=self.lease)
            claimed = turns.claim(session, UUID(str(uuid)), claimant)
        assert claimed is not None
        return claimed

    def report(self, claimed: Claim, step: int, steps: int) -> None:
        with self.database.transaction() as session:
            assert report(session, [Progress(claimed.uuid, claimed.attempt, step, steps)])

    def fail(self, claimed: Claim, problem: Problem = BROKEN) -> None:
        with self.database.transaction() as session:
            attempts.fail(session, claimed, problem, max_attempts=3)

    def finish(self, claimed: Claim, bodies: tuple[bytes, ...] = ()) -> list[str]:
        """SUCCESS with these PNGs; gives their keys."""
        found = bodies or (picture(),)
        keys = [object_key(claimed.tenant_id, claimed.uuid, claimed.attempt, n, "png") for n in range(len(found))]
        for key, content in zip(keys, found, strict=True):
            self.store.put(key, content, "image/png")
        images = [
            {
                "n": n,
                "object_key": key,
                "seed": n,
                "width": 96,
                "height": 64,
                "content_type": "image/png",
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for n, (key, content) in enumerate(zip(keys, found, strict=True))
        ]
        outcome = attempts.Outcome(images=images, timings={"render": 0.1}, model_revision="test")
        with self.database.transaction() as session:
            assert attempts.finish(session, claimed, outcome)
        return keys


@contextmanager
def working(database: Database, hand: Hand) -> Iterator[None]:
    """A worker that finishes whatever is queued."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            with database.transaction() as session:
                waiting = session.scalars(select(Job.uuid).where(Job.status == JobState.QUEUED)).all()
            for uuid in waiting:
                with suppress(AssertionError):  # its row is locked: it is just being dispatched
                    hand.finish(hand.claim(uuid))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)
    assert not thread.is_alive()
