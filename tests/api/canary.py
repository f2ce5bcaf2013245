"""A word that is looked for wherever the farm keeps something, and time that passes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient

from fluxfarm.airecord import Problem
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.records import Base
from tests.api.samples import body, picture

CANARY = "kanarienvogel-7f3a"
QUOTED = Problem(code="moderated", message=f"'{CANARY}' is not allowed", retryable=False)


def places(database: Database, settings: Settings, word: str = CANARY) -> list[str]:
    """Every table, key of Valkey and file of the data folder that holds the word."""
    found = []
    with database.engine.connect() as connection:
        for name in sorted(table.name for table in Base.metadata.sorted_tables):
            rows = connection.scalar(text(f"SELECT count(*) FROM {name} AS t WHERE t::text LIKE '%{word}%'"))
            found += [name] if rows else []
        bodies = connection.scalars(text("SELECT body FROM batch_files")).all()
        found += ["batch_files"] if any(word.encode() in bytes(one) for one in bodies) else []
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        found += [repr(key) for key in redis.scan_iter() if word.encode() in key + (redis.dump(key) or b"")]
    for path in Path(settings.data_dir).rglob("*"):
        if path.is_file() and (word in path.name or word.encode() in path.read_bytes()):
            found.append(path.name)
    return found


def age(database: Database, days: float) -> None:
    """Let so many days pass for everything that is stored."""
    with database.engine.begin() as connection:
        for table, columns in {
            "jobs": ("created_at", "finished_at"),
            "campaigns": ("created_at",),
            "batches": ("created_at",),
            "batch_files": ("created_at",),
            "reference_images": ("created_at",),
        }.items():
            moved = ", ".join(f"{column} = {column} - {days} * interval '1 day'" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {moved}"))


def keep(database: Database, **days: int | None) -> None:
    with database.engine.begin() as connection:
        for name, value in days.items():
            connection.execute(text(f"UPDATE tenants SET {name} = :value"), {"value": value})


def post(api: TestClient, **changes: Any) -> str:
    reply = api.post("/v1/jobs", json=body({"prompt": f"a {CANARY} on a branch"}, **changes))
    assert reply.status_code == 202, reply.text
    uuid: str = reply.json()["aiRecord"]["uuid"]
    return uuid


def record(api: TestClient, uuid: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]
    return found


def upload(api: TestClient, size: int = 80) -> str:
    reply = api.post("/v1/references", files={"file": picture(size, 64)})
    assert reply.status_code == 201, reply.text
    identity: str = reply.json()["id"]
    return identity


def objects(store: ObjectStore) -> int:
    return len(list(store.keys("t/")))
