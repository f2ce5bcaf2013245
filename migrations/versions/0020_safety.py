"""Safety: the mode of a tenant, its own denied words, and whether a job may switch the checks off."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("safety", sa.Text()))
    op.add_column("tenants", sa.Column("deny", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column(
        "tenants", sa.Column("may_disable_safety", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_tenants_safety"), "tenants", "safety IN ('off','log','block')")


def downgrade() -> None:
    for name in ("safety", "deny", "may_disable_safety"):
        op.drop_column("tenants", name)
