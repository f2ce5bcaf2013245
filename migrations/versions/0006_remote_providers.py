"""Remote providers: paid calls, tenants' keys, inbound webhooks; the ledger; routes of jobs and attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "inbound_events",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("provider", "id", name=op.f("pk_inbound_events")),
    )
    op.create_index(op.f("ix_inbound_events_received_at"), "inbound_events", ["received_at"], unique=False)
    op.create_table(
        "balances",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("campaign", sa.Text(), nullable=False),
        sa.Column("cap", sa.Numeric(precision=14, scale=6), nullable=True),
        sa.Column("reserved", sa.Numeric(precision=14, scale=6), server_default=sa.text("0"), nullable=False),
        sa.Column("spent", sa.Numeric(precision=14, scale=6), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("reserved >= 0 AND spent >= 0", name=op.f("ck_balances_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_balances_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "campaign", name=op.f("pk_balances")),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("campaign", sa.Text(), nullable=False),
        sa.Column("job_uuid", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=14, scale=6), nullable=False),
        sa.Column("provider", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('reserve','release','settle')", name=op.f("ck_ledger_entries_kind")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_ledger_entries_positive")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_ledger_entries_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    op.create_index(op.f("ix_ledger_entries_job_uuid"), "ledger_entries", ["job_uuid"], unique=False)
    op.create_index(
        op.f("ix_ledger_entries_tenant_id_created_at"), "ledger_entries", ["tenant_id", "created_at"], unique=False
    )
    op.create_table(
        "provider_accounts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_provider_accounts_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "provider", name=op.f("pk_provider_accounts")),
    )
    op.create_table(
        "remote_calls",
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("job_uuid", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("images", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("price", sa.Numeric(precision=14, scale=6), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'intended'"), nullable=False),
        sa.Column("hooked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("ticket", JSON, nullable=True),
        sa.Column("kept", JSON, nullable=True),
        sa.Column("cost", sa.Numeric(precision=14, scale=6), nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('intended','submitted','done','failed','unknown')", name=op.f("ck_remote_calls_state")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_remote_calls_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_remote_calls")),
    )
    op.create_index(op.f("ix_remote_calls_job_uuid"), "remote_calls", ["job_uuid"], unique=False)
    op.create_index(
        "ix_remote_calls_open",
        "remote_calls",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('intended','submitted')"),
    )
    op.add_column("attempts", sa.Column("model", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("route", JSON, nullable=True))
    op.add_column("attempts", sa.Column("parameters", JSON, nullable=True))
    op.create_index("ix_attempts_started_at", "attempts", ["started_at"], unique=False, postgresql_using="brin")
    op.add_column("jobs", sa.Column("remote", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("jobs", sa.Column("route", JSON, nullable=True))
    op.create_index(
        "ix_jobs_movable",
        "jobs",
        ["queue", "seq"],
        unique=False,
        postgresql_where=sa.text("status = 'QUEUED' AND remote"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_movable", table_name="jobs", postgresql_where=sa.text("status = 'QUEUED' AND remote"))
    op.drop_column("jobs", "route")
    op.drop_column("jobs", "remote")
    op.drop_index("ix_attempts_started_at", table_name="attempts", postgresql_using="brin")
    op.drop_column("attempts", "parameters")
    op.drop_column("attempts", "route")
    op.drop_column("attempts", "model")
    op.drop_index(
        "ix_remote_calls_open", table_name="remote_calls", postgresql_where=sa.text("state IN ('intended','submitted')")
    )
    op.drop_index(op.f("ix_remote_calls_job_uuid"), table_name="remote_calls")
    op.drop_table("remote_calls")
    op.drop_table("provider_accounts")
    op.drop_index(op.f("ix_ledger_entries_tenant_id_created_at"), table_name="ledger_entries")
    op.drop_index(op.f("ix_ledger_entries_job_uuid"), table_name="ledger_entries")
    op.drop_table("ledger_entries")
    op.drop_table("balances")
    op.drop_index(op.f("ix_inbound_events_received_at"), table_name="inbound_events")
    op.drop_table("inbound_events")
