"""Requests that went through a gate: figures and decisions, no text."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "gate_requests",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("started_at", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("request_class", sa.String(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("cell", sa.String(200), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=True),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("tokens_counted", sa.Boolean, nullable=False),
        sa.Column("ttft_s", sa.Float, nullable=True),
        sa.Column("tpot_s", sa.Float, nullable=True),
        sa.Column("itl_p99_s", sa.Float, nullable=True),
        sa.Column("e2e_s", sa.Float, nullable=False),
        sa.Column("predicted_ttft_s", sa.Float, nullable=True),
        sa.Column("predicted_tpot_s", sa.Float, nullable=True),
        sa.Column("met", sa.Boolean, nullable=True),
        sa.Column("cost_usd", sa.Float, nullable=True),
    )
    op.create_index("ix_gate_requests_deployment", "gate_requests", ["deployment", "started_at"])
