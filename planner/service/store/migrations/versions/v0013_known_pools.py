"""What decisions wanted, and pools as Poolwise left them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; of decisions of before nobody knows what they wanted."""
    op.add_column("decisions", sa.Column("wanted", sa.Text, nullable=True))
    op.create_table(
        "known_pools",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("pool", sa.String(200), primary_key=True),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("late", sa.Integer, nullable=False),
        sa.Column("edited_at", sa.String(40), nullable=True),
        sa.Column("edited_from", sa.Integer, nullable=True),
    )
