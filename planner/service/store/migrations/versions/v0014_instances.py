"""Which Poolwise a database is of, and pod templates that do not start."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; a database gets its name when it is asked for first."""
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(40), nullable=False),
    )
    op.add_column("known_pools", sa.Column("broken_template", sa.String(64), nullable=True))
    op.add_column(
        "known_pools", sa.Column("broken_times", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column("known_pools", sa.Column("broken_at", sa.String(40), nullable=True))
    op.add_column("known_pools", sa.Column("broken_why", sa.Text, nullable=True))
