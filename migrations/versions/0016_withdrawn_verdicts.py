"""Reviews: a verdict can be taken back."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

NAME = "ck_campaign_reviews_verdict"


def upgrade() -> None:
    op.drop_constraint(op.f(NAME), "campaign_reviews", type_="check")
    words = "'approve','reject','comment','regenerate','withdraw'"
    op.create_check_constraint(op.f(NAME), "campaign_reviews", f"verdict IN ({words})")


def downgrade() -> None:
    op.execute("DELETE FROM campaign_reviews WHERE verdict = 'withdraw'")
    op.drop_constraint(op.f(NAME), "campaign_reviews", type_="check")
    op.create_check_constraint(op.f(NAME), "campaign_reviews", "verdict IN ('approve','reject','comment','regenerate')")
