"""Owners of jobs, batches, shared data and drains; API keys; the stored contents of shared data."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What older releases stored, and store while they still run, has no owner.
    for table in ("jobs", "batches", "shared_data"):
        op.add_column(table, sa.Column("owner", sa.String(128), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("cancelled_by", sa.String(128)))
    op.create_index("jobs_by_owner", "jobs", ["owner", "job_id"])
    op.add_column("drains", sa.Column("requested_by", sa.String(128), nullable=False, server_default=""))
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("pricers", sa.Text),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("replaces", sa.String(16)),
        sa.Column("lifetime_ms", sa.BigInteger),
    )
    op.create_table(
        "data_contents",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        sa.Column("going", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.execute(
        "INSERT INTO data_contents (digest, size, used_at) "
        "SELECT digest, max(size), max(stored_at) FROM shared_data GROUP BY digest"
    )


def downgrade() -> None:
    op.drop_table("data_contents")
    op.drop_table("api_keys")
    op.drop_column("drains", "requested_by")
    op.drop_index("jobs_by_owner", "jobs")
    op.drop_column("jobs", "cancelled_by")
    for table in ("shared_data", "batches", "jobs"):
        op.drop_column(table, "owner")
