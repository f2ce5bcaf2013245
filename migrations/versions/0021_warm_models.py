"""Workers tell which models they have warm, and which one they load."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("warm", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("workers", sa.Column("loading", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("loaded_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in ("loaded_at", "loading", "warm"):
        op.drop_column("workers", name)
