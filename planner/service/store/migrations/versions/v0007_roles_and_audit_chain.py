"""Roles and lifetimes of tokens; the audit log chained by hashes, and only appended to."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PAGE = 1_000
NOTHING = "0" * 64
APPEND_ONLY = "the audit log is append-only"


def upgrade() -> None:
    """Tokens of before may do everything, as they could; lines of before are chained."""
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(sa.Column("role", sa.String(20), nullable=False, server_default="admin"))
        tokens.add_column(sa.Column("expires_at", sa.String(40), nullable=True))
        tokens.add_column(sa.Column("last_used_at", sa.String(40), nullable=True))
        tokens.add_column(sa.Column("revoked_at", sa.String(40), nullable=True))
    with op.batch_alter_table("tokens") as tokens:
        tokens.alter_column("role", existing_type=sa.String(20), server_default=None)
    op.create_index("ix_tokens_name", "tokens", ["name"])
    for column in ("prev_hash", "hash"):
        op.add_column("audit", sa.Column(column, sa.String(64), nullable=True))
    seq, head = _chain(op.get_bind())
    with op.batch_alter_table("audit") as audit:
        for column in ("prev_hash", "hash"):
            audit.alter_column(column, existing_type=sa.String(64), nullable=False)
    for column in ("prev_hash", "hash"):
        op.create_index(f"ix_audit_{column}", "audit", [column], unique=True)
    heads = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(heads, [{"id": 1, "seq": seq, "hash": head}])
    if op.get_bind().dialect.name == "postgresql":
        _postgresql_triggers()
    elif op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()


def _chain(connection: sa.Connection) -> tuple[int, str]:
    """Chain the lines of before; the last one's number and hash."""
    seq, head = 0, NOTHING
    page = sa.text(
        "SELECT seq, at, actor, action, subject, detail FROM audit WHERE seq > :seq "
        "ORDER BY seq LIMIT :page"
    )
    keep = sa.text("UPDATE audit SET prev_hash = :prev, hash = :hash WHERE seq = :seq")
    while rows := connection.execute(page, {"seq": seq, "page": PAGE}).all():
        hashed = []
        for row in rows:
            seq, prev = row.seq, head
            text = json.dumps([prev, *row], separators=(",", ":"))
            head = hashlib.sha256(text.encode()).hexdigest()
            hashed.append({"prev": prev, "hash": head, "seq": seq})
        connection.execute(keep, hashed)
    return seq, head


def _sqlite_triggers() -> None:
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{event.lower()} BEFORE {event} ON audit "
            f"BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END"
        )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{APPEND_ONLY}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_append_only()"
    )
    op.execute(
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
