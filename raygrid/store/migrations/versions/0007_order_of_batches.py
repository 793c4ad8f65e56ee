"""The order of the jobs in a batch, and an index for the order of batches."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In existing batches, jobs arrived in this order, except those that existed before their batch.
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
