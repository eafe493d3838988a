"""The commitments of month plans to their noise, append-only like the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("plan_id", "digest", "at")],
        sa.PrimaryKeyConstraint("seq", name="pk_commitments"),
        sa.ForeignKeyConstraint(["seq"], ["entries.seq"], name="fk_commitments_seq"),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.plan_id"], name="fk_commitments_plan_id"),
        sa.UniqueConstraint("plan_id", name="uq_commitments_plan_id"),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER commitments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            "ON commitments FOR EACH STATEMENT EXECUTE FUNCTION dpdau_append_only()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER commitments_no_{verb.lower()} BEFORE {verb} ON commitments "
            "BEGIN SELECT RAISE(ABORT, 'append-only: commitments'); END"
        )
