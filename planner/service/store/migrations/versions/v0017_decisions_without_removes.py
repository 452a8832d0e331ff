"""Decisions no longer say whether their plan takes capacity away: nothing ever read it."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the column in place: a table made anew would take the inputs of decisions along."""
    op.drop_column("decisions", "removes")
