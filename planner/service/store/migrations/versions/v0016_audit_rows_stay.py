"""A line of the audit log cannot be replaced either.

SQLite fires no trigger of a deletion for the rows that `INSERT OR REPLACE` throws out, unless the
connection that writes asks for it by `recursive_triggers`. PostgreSQL knows no such statement: its
`ON CONFLICT DO UPDATE` is an update, which is refused already.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Refuse a new line that has what only one may have: its number, or a hash."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "
        "WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) "
        "OR EXISTS (SELECT 1 FROM audit WHERE prev_hash = NEW.prev_hash) "
        "OR EXISTS (SELECT 1 FROM audit WHERE hash = NEW.hash) "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    )
