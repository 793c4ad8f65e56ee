"""Who last requested that the lead of a group be handed over, and when."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("leases", sa.Column("handed_over_by", sa.String(128), nullable=False, server_default=""))
    op.add_column("leases", sa.Column("handed_over_at", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("leases", "handed_over_at")
    op.drop_column("leases", "handed_over_by")
