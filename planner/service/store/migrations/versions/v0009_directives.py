"""Directives of people, token backlogs, and everything that a decision was made from."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "directives",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("value", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_by", sa.String(200), nullable=False),
        sa.Column("set_at", sa.String(40), nullable=False),
        sa.Column("until_at", sa.String(40), nullable=True),
    )
    op.create_table(
        "backlogs",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("observed_at", sa.String(40), nullable=False),
        sa.Column("backlog", sa.Text, nullable=False),
    )
    op.create_table(
        "recorded_values",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "decision_inputs",
        sa.Column(
            "decision",
            sa.Integer,
            sa.ForeignKey("decisions.seq", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("part", sa.String(20), primary_key=True),
        sa.Column("digest", sa.String(64), sa.ForeignKey("recorded_values.digest"), nullable=False),
    )
    op.create_index("ix_decision_inputs_digest", "decision_inputs", ["digest"])
