"""Corrections of profiles, and what was observed beside what was predicted."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "calibrations",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("profile_id", sa.String(200), primary_key=True),
        sa.Column("leg", sa.String(20), primary_key=True),
        sa.Column("changed_at", sa.String(40), nullable=False),
        sa.Column("calibration", sa.Text, nullable=False),
    )
    op.create_table(
        "comparisons",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("compared_at", sa.String(40), nullable=False),
        sa.Column("comparison", sa.Text, nullable=False),
    )
    op.create_index("ix_comparisons_deployment", "comparisons", ["deployment", "seq"])
