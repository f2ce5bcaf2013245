"""Erasures that the sweeper makes sure of, and the measured pace of a queue."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("job_uuid", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("job_uuid", name=op.f("pk_erasures")),
    )
    op.add_column("queue_clocks", sa.Column("pace", sa.Double(), server_default=sa.text("1"), nullable=False))


def downgrade() -> None:
    op.drop_column("queue_clocks", "pace")
    op.drop_table("erasures")
