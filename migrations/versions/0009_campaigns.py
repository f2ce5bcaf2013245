"""Campaigns, the files that they deliver, and what people say of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("spec", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("references", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("arithmetic", sa.Text(), nullable=False),
        sa.Column("wish", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("wish IN ('wait','run','pause','cancel')", name=op.f("ck_campaigns_wish")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_campaigns_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_campaigns_tenant_id_name")),
    )
    op.create_index("ix_campaigns_held", "campaigns", ["tenant_id", "name"], postgresql_where=sa.text("wish <> 'run'"))
    op.create_index("ix_campaigns_tenant", "campaigns", ["tenant_id", "created_at"])
    op.create_index(
        "ix_jobs_campaign_waiting",
        "jobs",
        ["tenant_id", "campaign"],
        postgresql_where=sa.text("status = 'QUEUED' AND campaign <> ''"),
    )
    op.create_index(
        "ix_jobs_finished", "jobs", ["queue", "finished_at"], postgresql_where=sa.text("status = 'SUCCESS'")
    )
    op.create_index(op.f("ix_reference_images_tenant_id_sha256"), "reference_images", ["tenant_id", "sha256"])
    op.create_table(
        "campaign_assets",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_draft", sa.Boolean(), nullable=False),
        sa.Column("draft_n", sa.Integer(), nullable=True),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("variant", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("values", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("job_uuid", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_assets_campaign_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_uuid"], ["jobs.uuid"], name=op.f("fk_campaign_assets_job_uuid"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "n", name=op.f("pk_campaign_assets")),
        sa.UniqueConstraint("campaign_id", "name", name=op.f("uq_campaign_assets_campaign_id_name")),
    )
    op.create_index(op.f("ix_campaign_assets_job_uuid"), "campaign_assets", ["job_uuid"])
    op.create_table(
        "campaign_reviews",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("job_uuid", sa.Uuid(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('approve','reject','comment','regenerate')", name=op.f("ck_campaign_reviews_verdict")
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_reviews_campaign_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign_reviews")),
    )
    op.create_index(op.f("ix_campaign_reviews_campaign_id_n_id"), "campaign_reviews", ["campaign_id", "n", "id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_reference_images_tenant_id_sha256"), table_name="reference_images")
    op.drop_index("ix_jobs_finished", table_name="jobs")
    op.drop_index("ix_jobs_campaign_waiting", table_name="jobs")
    op.drop_table("campaign_reviews")
    op.drop_table("campaign_assets")
    op.drop_table("campaigns")
