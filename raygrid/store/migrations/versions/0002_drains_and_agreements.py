"""Drains of nodes, and agreements of the grid."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drains",
        sa.Column("node_id", sa.String(255), primary_key=True),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("deadline_at", sa.BigInteger),
    )
    op.create_table(
        "agreements",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("agreements", "drains"):
        op.drop_table(table)
