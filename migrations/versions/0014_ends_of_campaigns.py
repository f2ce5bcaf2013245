"""The end of a campaign is told to its webhook."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_deliveries", sa.Column("campaign_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_webhook_deliveries_campaign_id"),
        "webhook_deliveries",
        "campaigns",
        ["campaign_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_index(
        "ix_webhook_deliveries_campaign",
        "webhook_deliveries",
        ["campaign_id"],
        postgresql_where=sa.text("campaign_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM webhook_deliveries WHERE campaign_id IS NOT NULL")
    op.drop_index("ix_webhook_deliveries_campaign", table_name="webhook_deliveries")
    op.drop_constraint(op.f("fk_webhook_deliveries_campaign_id"), "webhook_deliveries")
    op.drop_column("webhook_deliveries", "campaign_id")
