"""Forecasts of the loop, and what came of the windows that they spoke of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two tables."""
    op.create_table(
        "forecasts",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("made_at", sa.String(40), nullable=False),
        sa.Column("window_s", sa.Float, nullable=False),
        sa.Column("windows", sa.Integer, nullable=False),
        sa.Column("forecast", sa.Text, nullable=False),
        sa.UniqueConstraint("deployment", "model", "made_at", name="uq_forecasts_made_at"),
    )
    op.create_table(
        "forecast_outcomes",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("made_at", sa.String(40), nullable=False),
        sa.Column("windows_ahead", sa.Integer, nullable=False),
        sa.Column("request_class", sa.String(200), nullable=False),
        sa.Column("start_at", sa.String(40), nullable=False),
        sa.Column("window_s", sa.Float, nullable=False),
        *(
            sa.Column(f"{quantity}{view}_{unit}", sa.Float, nullable=False)
            for quantity, unit in (
                ("request_rate", "rps"),
                ("input_tokens", "per_s"),
                ("output_tokens", "per_s"),
            )
            for view in ("", "_median", "_q90")
        ),
        sa.UniqueConstraint(
            "deployment",
            "model",
            "made_at",
            "windows_ahead",
            "request_class",
            name="uq_forecast_outcomes_window",
        ),
    )
