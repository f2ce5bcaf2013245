"""Workers tell the memory and the load of their device."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("memory_used", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("memory_total", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("utilisation", sa.Double(), nullable=True))


def downgrade() -> None:
    for name in ("utilisation", "memory_total", "memory_used"):
        op.drop_column("workers", name)
