"""webhook endpoints that speak as other services do, and may be told of a job's start."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UNIQUE = "uq_webhook_endpoints_tenant_id_url"


def upgrade() -> None:
    op.add_column(
        "webhook_endpoints", sa.Column("form", sa.Text(), server_default=sa.text("'standard'"), nullable=False)
    )
    op.add_column(
        "webhook_endpoints",
        sa.Column("moments", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{end}'"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_webhook_endpoints_form"), "webhook_endpoints", "form IN ('standard','fal','replicate')"
    )
    op.drop_constraint(op.f(UNIQUE), "webhook_endpoints", type_="unique")
    op.create_unique_constraint(
        op.f(f"{UNIQUE}_form_moments"), "webhook_endpoints", ["tenant_id", "url", "form", "moments"]
    )


def downgrade() -> None:
    op.execute("DELETE FROM webhook_endpoints WHERE form <> 'standard' OR moments <> '{end}'")
    op.drop_constraint(op.f(f"{UNIQUE}_form_moments"), "webhook_endpoints", type_="unique")
    op.create_unique_constraint(op.f(UNIQUE), "webhook_endpoints", ["tenant_id", "url"])
    op.drop_constraint(op.f("ck_webhook_endpoints_form"), "webhook_endpoints", type_="check")
    op.drop_column("webhook_endpoints", "moments")
    op.drop_column("webhook_endpoints", "form")
