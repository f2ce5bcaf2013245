"""What a tenant may and what is kept for how long, the rates of keys, their rotation, and what other calls made."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NUMBERS = ("max_running", "rate_limit", "prompt_days", "reference_hours", "result_days")


def upgrade() -> None:
    op.add_column("tenants", sa.Column("commercial", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("tenants", sa.Column("models", postgresql.ARRAY(sa.Text())))
    for name in NUMBERS:
        op.add_column("tenants", sa.Column(name, sa.Integer()))
    op.create_check_constraint(op.f("ck_tenants_weight"), "tenants", "weight > 0")
    op.create_check_constraint(op.f("ck_tenants_caps"), "tenants", "max_running > 0 AND rate_limit > 0")
    op.create_check_constraint(
        op.f("ck_tenants_retention"), "tenants", "prompt_days > 0 AND reference_hours > 0 AND result_days > 0"
    )
    op.add_column("api_keys", sa.Column("rate_limit", sa.Integer()))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Uuid()))
    op.create_check_constraint(op.f("ck_api_keys_rate_limit"), "api_keys", "rate_limit > 0")
    op.create_foreign_key(
        op.f("fk_api_keys_replaced_by"), "api_keys", "api_keys", ["replaced_by"], ["id"], ondelete="SET NULL"
    )
    op.add_column("idempotency_keys", sa.Column("made", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.drop_column("idempotency_keys", "made")
    op.drop_column("api_keys", "replaced_by")
    op.drop_column("api_keys", "rate_limit")
    op.drop_constraint(op.f("ck_tenants_weight"), "tenants")
    for name in ("commercial", "models", *NUMBERS):
        op.drop_column("tenants", name)
