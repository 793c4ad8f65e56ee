"""The content key of a result, and the job whose result was reused."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REUSABLE = sa.text("content IS NOT NULL AND purged_at IS NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("content", sa.String(64)))
    op.add_column("jobs", sa.Column("reused_from", sa.String(128)))
    op.create_index("jobs_by_content", "jobs", ["content", "seq"], sqlite_where=REUSABLE, postgresql_where=REUSABLE)


def downgrade() -> None:
    op.drop_index("jobs_by_content", "jobs")
    op.drop_column("jobs", "reused_from")
    op.drop_column("jobs", "content")
