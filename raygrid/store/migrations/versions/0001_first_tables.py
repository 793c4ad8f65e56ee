"""The first tables: jobs, batches, revisions, shared data, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("pricer", sa.String(64), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("args", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("affinity", sa.Text),
        sa.Column("site", sa.Text),
        sa.Column("timeout_s", sa.Float),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("input_key", sa.Text, nullable=False),
        sa.Column("input_offset", sa.BigInteger, nullable=False),
        sa.Column("input_size", sa.BigInteger, nullable=False),
        sa.Column("input_digest", sa.String(64), nullable=False),
        sa.Column("inline", sa.LargeBinary),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("node_id", sa.Text),
        sa.Column("reason", sa.String(32)),
        sa.Column("message", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("signal", sa.Integer),
        sa.Column("stderr_tail", sa.Text),
        sa.Column("result_key", sa.Text),
        sa.Column("result_offset", sa.BigInteger),
        sa.Column("result_size", sa.BigInteger),
        sa.Column("result_digest", sa.String(64)),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("purged_at", sa.BigInteger),
    )
    op.create_index("jobs_by_turn", "jobs", ["group_id", "state", sa.text("priority DESC"), "seq"])
    op.create_index("jobs_by_end", "jobs", ["purged_at", "ended_at"])
    op.create_index("jobs_by_input", "jobs", ["input_key"])
    op.create_index("jobs_by_result", "jobs", ["result_key"])
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(128), primary_key=True),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "batch_jobs",
        sa.Column("batch_id", sa.String(128), primary_key=True),
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("batch_jobs_by_revision", "batch_jobs", ["batch_id", "revision"])
    op.create_index("batch_jobs_by_job", "batch_jobs", ["job_id"])
    revisions = op.create_table(
        "revisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("latest", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revisions, [{"id": 1, "latest": 0}])
    op.create_table(
        "shared_data",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("group_id", sa.String(128), primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("leases", "shared_data", "revisions", "batch_jobs", "batches", "jobs"):
        op.drop_table(table)
