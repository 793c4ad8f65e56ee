"""Definitions of pricers, and the definition of each job."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "definitions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
    )
    op.add_column("jobs", sa.Column("definition", sa.String(64)))


def downgrade() -> None:
    op.drop_column("jobs", "definition")
    op.drop_table("definitions")
