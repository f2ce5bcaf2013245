"""The replies of calls that make something other than a job, kept encrypted for as long as their idempotency key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("sealed_reply", sa.Text()))
    op.drop_column("idempotency_keys", "made")


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE sealed_reply IS NOT NULL")
    op.add_column("idempotency_keys", sa.Column("made", postgresql.JSONB(none_as_null=True)))
    op.drop_column("idempotency_keys", "sealed_reply")
