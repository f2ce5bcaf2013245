"""idempotency keys, external ids and retries by the caller."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("external_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_retry_of"), "jobs", "jobs", ["retry_of"], ["uuid"], ondelete="SET NULL")
    op.create_index(
        "ix_jobs_external_id",
        "jobs",
        ["tenant_id", "external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_retry_of", "jobs", ["retry_of"], unique=True, postgresql_where=sa.text("retry_of IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_failed", "jobs", ["tenant_id", "seq"], unique=False, postgresql_where=sa.text("status = 'FAILED'")
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("job_uuid", sa.Uuid(), nullable=True),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_idempotency_keys_tenant_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_uuid"], ["jobs.uuid"], name=op.f("fk_idempotency_keys_job_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_job_uuid"), "idempotency_keys", ["job_uuid"], unique=False)
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_index("ix_jobs_failed", table_name="jobs", postgresql_where=sa.text("status = 'FAILED'"))
    op.drop_index("ix_jobs_retry_of", table_name="jobs", postgresql_where=sa.text("retry_of IS NOT NULL"))
    op.drop_index("ix_jobs_external_id", table_name="jobs", postgresql_where=sa.text("external_id IS NOT NULL"))
    op.drop_constraint(op.f("fk_jobs_retry_of"), "jobs", type_="foreignkey")
    op.drop_column("jobs", "retry_of")
    op.drop_column("jobs", "external_id")
