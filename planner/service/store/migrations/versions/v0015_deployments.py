"""Deployments that were added to, or retired from, a running server."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "deployments",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("lease", sa.String(200), nullable=False),
        sa.Column("given", sa.String(80), nullable=False),
        sa.Column("changed_at", sa.String(40), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("retired", sa.Boolean, nullable=False),
    )
    op.create_index("ix_deployments_lease", "deployments", ["lease"])
