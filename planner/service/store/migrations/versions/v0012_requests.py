"""Answers kept under idempotency keys, jobs, the processes that run them, specs and profiles."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; orders learn which state of a plan they were given for."""
    op.create_table(
        "processes",
        sa.Column("identity", sa.String(200), primary_key=True),
        sa.Column("seen_at", sa.String(40), nullable=False),
    )
    op.create_table(
        "repeats",
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("until_at", sa.String(40), nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("headers", sa.Text, nullable=True),
        sa.Column("body", sa.Text, nullable=True),
    )
    op.create_index("ix_repeats_until_at", "repeats", ["until_at"])
    op.create_table(
        "jobs",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(80), nullable=False),
        sa.Column("deployment", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("asked_by", sa.String(200), nullable=False),
        sa.Column("asked_at", sa.String(40), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=True),
        sa.Column("changed_at", sa.String(40), nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("location", sa.String(400), nullable=True),
        sa.Column("answer", sa.Text, nullable=True),
        sa.UniqueConstraint("job_id", name="uq_jobs_job_id"),
    )
    op.create_index("ix_jobs_state", "jobs", ["deployment", "state", "seq"])
    op.create_table(
        "specs",
        sa.Column("deployment", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("spec_id", sa.String(80), nullable=False),
        sa.Column("given", sa.String(80), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("allow_estimates", sa.Boolean, nullable=False),
        sa.Column("put_at", sa.String(40), nullable=False),
        sa.Column("put_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "profiles",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("profile_id", sa.String(80), nullable=False),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("added_at", sa.String(40), nullable=False),
        sa.Column("added_by", sa.String(200), nullable=False),
        sa.UniqueConstraint("profile_id", name="uq_profiles_profile_id"),
    )
    op.add_column("orders", sa.Column("revision", sa.Integer, nullable=True))
