"""Keys that ran jobs may render, read and run campaigns."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE api_keys SET scopes = array_remove(scopes, 'jobs') || ARRAY['render', 'read', 'campaigns'] "
        "WHERE 'jobs' = ANY (scopes)"
    )


def downgrade() -> None:
    op.execute(
        "UPDATE api_keys SET scopes = ARRAY['jobs'] || array_remove(array_remove(array_remove(array_remove("
        "scopes, 'render'), 'read'), 'campaigns'), 'operator') WHERE scopes && ARRAY['render', 'read', 'campaigns']"
    )
