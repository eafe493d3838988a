"""What API keys may ask, which key takes the place of another, and when each was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_limits",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("key_id", "rate_limit")],
        sa.PrimaryKeyConstraint("seq", name="pk_key_limits"),
        sa.ForeignKeyConstraint(["seq"], ["entries.seq"], name="fk_key_limits_seq"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.key_id"], name="fk_key_limits_key_id"),
        sa.UniqueConstraint("key_id", name="uq_key_limits_key_id"),
    )
    names = ("key_id", "successor", "ends_at", "at")
    op.create_table(
        "key_successions",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in names],
        sa.PrimaryKeyConstraint("seq", name="pk_key_successions"),
        sa.ForeignKeyConstraint(["seq"], ["entries.seq"], name="fk_key_successions_seq"),
        *[
            sa.ForeignKeyConstraint([name], ["api_keys.key_id"], name=f"fk_key_successions_{name}")
            for name in names[:2]
        ],
        *[sa.UniqueConstraint(name, name=f"uq_key_successions_{name}") for name in names[:2]],
    )
    op.create_table(
        "key_uses",
        *[sa.Column(name, sa.Text, nullable=False) for name in ("key_id", "used_at")],
        sa.PrimaryKeyConstraint("key_id", name="pk_key_uses"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.key_id"], name="fk_key_uses_key_id"),
    )
    for table in ("key_limits", "key_successions"):
        _append_only(table)


def _append_only(table: str) -> None:
    """Refuses to change or to remove a row."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION dpdau_append_only()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'append-only: {table}'); END"
        )
