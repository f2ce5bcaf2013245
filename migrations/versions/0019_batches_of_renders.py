"""Attempts: which call of the pipeline drew them together with others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("batch", JSONB(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "batch")
