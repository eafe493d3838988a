"""The tables, the chain, and the triggers that keep both append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = (
    "entries",
    "identity",
    "budgets",
    "grants",
    "plans",
    "charges",
    "releases",
    "audit",
    "api_keys",
    "key_revocations",
)


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *_texts("kind", "ref", "digest", "prev_hash", "hash", "at"),
        sa.PrimaryKeyConstraint("seq", name="pk_entries"),
        sa.CheckConstraint("seq >= 1", name="ck_entries_seq"),
    )
    _chained("identity", *_texts("ledger_id", "created_at"), _unique("identity", "ledger_id"))
    _chained(
        "budgets",
        *_texts("budget_id", "metric", "period", "filter", "epsilon", "delta", "opened_at"),
        _unique("budgets", "budget_id"),
    )
    _chained("grants", *_texts("budget_id", "actor", "reason", "at"))
    op.create_index("ix_grants_budget_id", "grants", ["budget_id"])
    _chained(
        "plans",
        *_texts("plan_id", "kind", "body", "budget_id", "opened_at"),
        _unique("plans", "plan_id"),
        _foreign("plans", "budget_id", "budgets"),
    )
    op.create_index("ix_plans_budget_id", "plans", ["budget_id"])
    _chained(
        "charges",
        *_texts("plan_id", "budget_id", "dp_event", "neighboring_relation", "at"),
        _unique("charges", "plan_id"),
        _foreign("charges", "plan_id", "plans"),
        _foreign("charges", "budget_id", "budgets"),
    )
    op.create_index("ix_charges_budget_id", "charges", ["budget_id"])
    _releases()
    _chained("audit", *_texts("at", "actor", "action", "facts"))
    _chained(
        "api_keys",
        *_texts("key_id", "hash", "scopes", "label", "created_at"),
        sa.Column("expires_at", sa.Text, nullable=True),
        _unique("api_keys", "key_id"),
    )
    _chained(
        "key_revocations",
        *_texts("key_id", "actor", "at"),
        _unique("key_revocations", "key_id"),
        _foreign("key_revocations", "key_id", "api_keys"),
    )
    op.create_table(
        "probe",
        sa.Column("probe_id", sa.Integer, autoincrement=False, nullable=False),
        *_texts("at"),
        sa.PrimaryKeyConstraint("probe_id", name="pk_probe"),
    )
    _refuse_changes(op.get_context().dialect.name)


def _releases() -> None:
    _chained(
        "releases",
        *_texts("release_id", "plan_id"),
        sa.Column("step", sa.Integer, nullable=False),
        *_texts("metric", "day"),
        sa.Column("window_days", sa.Integer, nullable=False),
        sa.Column("segment", sa.Text, nullable=True),
        *_texts("body", "at"),
        _unique("releases", "release_id"),
        sa.UniqueConstraint("plan_id", "step", name="uq_releases_plan_id"),
        _foreign("releases", "plan_id", "plans"),
        sa.CheckConstraint("step >= 0", name="ck_releases_step"),
    )
    op.create_index("ix_releases_question", "releases", ["metric", "day", "window_days", "segment"])


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _unique(table: str, column: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(column, name=f"uq_{table}_{column}")


def _foreign(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{parent}.{column}"], name=f"fk_{table}_{column}")


def _chained(name: str, *items: sa.schema.SchemaItem) -> None:
    op.create_table(
        name,
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *items,
        sa.PrimaryKeyConstraint("seq", name=f"pk_{name}"),
        sa.ForeignKeyConstraint(["seq"], ["entries.seq"], name=f"fk_{name}_seq"),
    )


def _refuse_changes(dialect: str) -> None:
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION dpdau_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION USING MESSAGE = 'append-only: ' || TG_TABLE_NAME; END $$"
        )
    for table in _APPEND_ONLY:
        if dialect == "postgresql":
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
                f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION dpdau_append_only()"
            )
            continue
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'append-only: {table}'); END"
            )
