"""The order in which jobs were submitted to a batch, and that of batches themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of batches that are there: jobs arrived in this order, apart from those that were there before their batch.
    op.add_column("batch_jobs", sa.Column("position", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE batch_jobs SET position = coalesce((SELECT seq FROM jobs WHERE jobs.job_id = batch_jobs.job_id), 0)"
    )
    op.create_index("batch_jobs_by_position", "batch_jobs", ["batch_id", "position"])
    op.create_index("batches_by_age", "batches", ["submitted_at", "batch_id"])


def downgrade() -> None:
    op.drop_index("batches_by_age", "batches")
    op.drop_index("batch_jobs_by_position", "batch_jobs")
    op.drop_column("batch_jobs", "position")
