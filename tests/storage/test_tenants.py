from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from fluxfarm.errors import NotFound, Unauthorized
from storage import keys
from storage.database import Database
from storage.records import Tenant
from storage.repository import tenants


def test_a_key_opens_its_tenant_and_is_not_kept(database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        made, secret = tenants.create_key(session, tenant.id, "ci", ["render"])
        found = tenants.authenticate(session, secret)
        assert (found.id, found.tenant_id, found.scopes) == (made.id, tenant.id, ["render"])
    assert re.fullmatch(r"ff_live_[0-9A-Za-z]{36}", secret)
    with database.engine.connect() as connection:
        stored = str(connection.execute(text("SELECT row_to_json(k)::text FROM api_keys k")).scalar_one())
    assert secret not in stored
    assert secret[12:] not in stored


@pytest.mark.parametrize("wrong", [None, "", "ff_live_", "x" * 44, "ff_live_" + "0" * 36, "ключ", "ff_live_\x00"])
def test_what_is_no_key_opens_nothing(database: Database, wrong: str | None) -> None:
    with pytest.raises(Unauthorized), database.transaction() as session:
        tenants.authenticate(session, wrong)


def test_revoked_expired_and_misspelt_keys_are_shut(database: Database, tenant: Tenant) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with database.transaction() as session:
        revoked, secret = tenants.create_key(session, tenant.id, "old", ["render"])
        _, expired = tenants.create_key(session, tenant.id, "late", ["render"], expires_at=yesterday)
        tenants.revoke_key(session, tenant.id, revoked.id)
        tenants.revoke_key(session, tenant.id, revoked.id)
    for wrong in (secret, expired, keys.make_key(), secret[:-1] + ("0" if secret[-1] != "0" else "1")):
        with pytest.raises(Unauthorized), database.transaction() as session:
            tenants.authenticate(session, wrong)


def test_only_the_owner_revokes(database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        stranger = tenants.ensure_tenant(session, "stranger")
        made, secret = tenants.create_key(session, tenant.id, "ci", ["render"])
    with pytest.raises(NotFound), database.transaction() as session:
        tenants.revoke_key(session, stranger.id, made.id)
    with database.transaction() as session:
        assert tenants.list_keys(session, stranger.id) == []
        assert [key.id for key in tenants.list_keys(session, tenant.id)] == [made.id]
        assert tenants.authenticate(session, secret).id == made.id


def test_the_last_use_is_noted_once_a_minute(database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        made, _ = tenants.create_key(session, tenant.id, "ci", ["render"])
    seen = set()
    for _ in range(3):
        with database.transaction() as session:
            tenants.note_use(session, made.id)
        with database.transaction() as session:
            seen.add(tenants.list_keys(session, tenant.id)[0].last_used_at)
    assert len(seen) == 1
    assert None not in seen


def test_checksums_find_typing_errors_offline() -> None:
    key = keys.make_key()
    assert keys.is_well_formed(key)
    swapped = key[:10] + key[11] + key[10] + key[12:]
    assert swapped == key or not keys.is_well_formed(swapped)
    assert len({keys.make_key() for _ in range(100)}) == 100
