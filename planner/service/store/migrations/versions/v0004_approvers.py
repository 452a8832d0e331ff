"""Who asked for a plan, who has approved it, and how many have to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; plans of before needed one person."""
    for column in (
        sa.Column("requested_by", sa.String(200), nullable=False, server_default=""),
        sa.Column("approvers", sa.Text, nullable=False, server_default="[]"),
        sa.Column("needed", sa.Integer, nullable=False, server_default="1"),
    ):
        op.add_column("approvals", column)
