"""Which observed windows are rolled up, and hours of requests that went through a gate."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; windows of before are as they were observed."""
    op.add_column(
        "observations", sa.Column("rolled_up", sa.Integer, nullable=False, server_default="0")
    )
    op.create_index(
        "ix_observations_rolled_up",
        "observations",
        ["deployment", "model", "request_class", "rolled_up", "start_at"],
    )
    op.create_table(
        "gate_hours",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("hour_at", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("request_class", sa.String(200), nullable=False),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("judged", sa.BigInteger, nullable=False),
        sa.Column("met", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
        sa.UniqueConstraint(
            "deployment",
            "hour_at",
            "model",
            "request_class",
            "client",
            "outcome",
            name="uq_gate_hours_hour",
        ),
    )
