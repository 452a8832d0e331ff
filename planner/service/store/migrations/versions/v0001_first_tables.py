"""The first tables: plans, approvals, observations, fleets, decisions, audit, tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of the first version."""
    _plans()
    _observations()
    op.create_table(
        "decisions",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("decided_at", sa.String(40), nullable=False),
        sa.Column("plan_id", sa.String(80), nullable=True),
        sa.Column("outcome", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("removes", sa.Integer, nullable=False),
    )
    op.create_index("ix_decisions_deployment", "decisions", ["deployment", "seq"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(80), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
    )


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("plan_id", sa.String(80), primary_key=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("diff", sa.Text, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
    )
    op.create_index("ix_plans_deployment", "plans", ["deployment", "created_at"])
    op.create_table(
        "approvals",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("plan_id", sa.String(80), sa.ForeignKey("plans.plan_id"), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("fleet_version", sa.String(200), nullable=False),
        sa.Column("changed_at", sa.String(40), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("ix_approvals_plan_id", "approvals", ["plan_id", "seq"])


def _observations() -> None:
    op.create_table(
        "observations",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("request_class", sa.String(200), nullable=False),
        sa.Column("start_at", sa.String(40), nullable=False),
        sa.Column("window_s", sa.Float, nullable=False),
        sa.Column("received_at", sa.String(40), nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.UniqueConstraint(
            "deployment", "model", "request_class", "start_at", name="uq_observations_window"
        ),
    )
    op.create_table(
        "fleets",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("received_at", sa.String(40), nullable=False),
        sa.Column("fleet", sa.Text, nullable=False),
    )
