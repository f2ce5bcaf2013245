"""``python -m storage.bootstrap``: the first tenant and a key to get in, as JSON on standard output.

Run again it makes a fresh key and revokes the earlier ones of the same name, so that a farm which writes its key to a
file at every start leaves no trail of live keys. It also creates the bucket when S3 is used and the bucket is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from fluxfarm.errors import FluxfarmError
from fluxfarm.scopes import Scope
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import make_store
from storage.objects_s3 import S3Store
from storage.repository import tenants

TENANT: Final = "default"
KEY_NAME: Final = "fluxfarm up"


def ensure_access(database: Database, name: str = KEY_NAME) -> dict[str, str]:
    """Make the tenant ``default`` and a key of this name, the only live one; gives tenant, key_id and api_key."""
    with database.transaction() as session:
        tenant = tenants.ensure_tenant(session, TENANT)
        key, secret = tenants.create_key(session, tenant.id, name, Scope)
        for old in tenants.list_keys(session, tenant.id):
            if old.name == name and old.id != key.id and old.revoked_at is None:
                tenants.revoke_key(session, tenant.id, old.id)
        return {"tenant": tenant.name, "key_id": str(key.id), "api_key": secret}


def ensure_bucket(settings: Settings) -> None:
    """Create the bucket of ``S3_BUCKET`` if there is none; the local disk needs nothing."""
    if not settings.s3_bucket:
        return
    store = make_store(settings)
    try:
        if isinstance(store, S3Store):
            store.ensure_bucket()
    finally:
        store.close()


def main(arguments: Sequence[str]) -> int:
    """Print the access as JSON; 1 and a sentence on standard error when a part of the farm is down."""
    parser = argparse.ArgumentParser(prog="python -m storage.bootstrap", description=__doc__)
    parser.add_argument("--name", default=KEY_NAME, help="name of the key (default: %(default)s)")
    name: str = parser.parse_args(arguments).name
    settings = Settings()
    database = Database.from_settings(settings, pool_size=1)
    try:
        ensure_bucket(settings)
        access = ensure_access(database, name)
    except FluxfarmError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    finally:
        database.close()
    sys.stdout.write(json.dumps(access) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
