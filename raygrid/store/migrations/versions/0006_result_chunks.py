"""The digests of the chunks of large results."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("result_chunks", sa.LargeBinary))


def downgrade() -> None:
    op.drop_column("jobs", "result_chunks")
