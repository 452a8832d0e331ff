"""Steps of rollouts as they were begun, and accelerators that could not be had for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two tables; of rollouts of before no step is known."""
    op.create_table(
        "steps",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("plan_id", sa.String(80), sa.ForeignKey("plans.plan_id"), nullable=False),
        sa.Column("run", sa.Integer, sa.ForeignKey("approvals.seq"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("begun_at", sa.String(40), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
    )
    op.create_index("ix_steps_plan_id", "steps", ["plan_id", "seq"])
    op.create_table(
        "stock_outs",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("accelerator", sa.String(200), nullable=False),
        sa.Column("usable", sa.Integer, nullable=False),
        sa.Column("until_at", sa.String(40), nullable=False),
    )
    op.create_index("ix_stock_outs_deployment", "stock_outs", ["deployment", "until_at"])
