"""What the charges of each budget add up to, under a CHECK of the database."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "balances",
        sa.Column("budget_id", sa.Text, nullable=False),
        sa.Column("allowances", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("budget_id", name="pk_balances"),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.budget_id"], name="fk_balances_budget_id"),
        sa.CheckConstraint(
            "spent >= 0 AND spent <= allowances * 1000000000000000", name="ck_balances_spent"
        ),
    )
