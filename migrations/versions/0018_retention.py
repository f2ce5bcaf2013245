"""Retention: what of a job was erased, how far each tenant was looked through, and objects that are to go."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CHECK = "ck_tenants_retention"


def upgrade() -> None:
    op.add_column("tenants", sa.Column("record_days", sa.Integer()))
    op.drop_constraint(op.f(CHECK), "tenants", type_="check")
    op.create_check_constraint(
        op.f(CHECK), "tenants", "prompt_days >= 0 AND reference_hours >= 0 AND result_days >= 0 AND record_days >= 0"
    )
    op.add_column("jobs", sa.Column("erased", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.create_index(
        "ix_jobs_kept",
        "jobs",
        ["tenant_id", "finished_at", "seq"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_references",
        "jobs",
        [sa.text("(request -> 'references')")],
        postgresql_using="gin",
        postgresql_where=sa.text("status IN ('QUEUED','RUNNING') AND type = 'IMAGE_EDITOR'"),
    )
    op.create_table(
        "retention_marks",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("'epoch'"), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("kind IN ('prompt','references','results','record')", name=op.f("ck_retention_marks_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_retention_marks_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name=op.f("pk_retention_marks")),
    )
    op.create_table(
        "leftovers",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_leftovers")),
    )
    op.create_index(op.f("ix_leftovers_since"), "leftovers", ["since"])


def downgrade() -> None:
    op.drop_table("leftovers")
    op.drop_table("retention_marks")
    op.drop_index("ix_jobs_references", table_name="jobs")
    op.drop_index("ix_jobs_kept", table_name="jobs")
    op.drop_column("jobs", "erased")
    op.drop_constraint(op.f(CHECK), "tenants", type_="check")
    for name in ("prompt_days", "reference_hours", "result_days"):
        op.execute(f"UPDATE tenants SET {name} = NULL WHERE {name} = 0")  # noqa: S608 - names from here
    op.drop_column("tenants", "record_days")
    op.create_check_constraint(op.f(CHECK), "tenants", "prompt_days > 0 AND reference_hours > 0 AND result_days > 0")
