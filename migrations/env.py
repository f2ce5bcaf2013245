"""How Alembic reaches the database: the farm's own settings, and one transaction for each run."""

from alembic import context
from sqlalchemy import Connection, create_engine, make_url

from fluxfarm.settings import Settings
from storage.batch_records import Batch
from storage.campaign_records import Campaign
from storage.database import libpq_url
from storage.ledger_records import Balance
from storage.records import Base
from storage.remote_records import RemoteCall
from storage.retention_records import Leftover
from storage.webhook_records import Endpoint

for table in (Balance, Batch, Campaign, Endpoint, Leftover, RemoteCall):  # its tables are known because it was imported
    assert table.metadata is Base.metadata


def _run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = make_url(libpq_url(Settings().database_url)).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.connect() as own:
        _migrate(own)
        own.commit()
    engine.dispose()


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


_run()
