"""The typed tables of the ledger.

Every table but `balances`, `key_uses` and `probe` is append-only: each row carries the `seq` of its
entry in the hash chain, and triggers refuse UPDATE and DELETE. Only portable types are used:
instants, days, JSON and exact fractions (`num/den`) are text, so that a row has one form in every
database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


class EntryColumns(TypedColumns):
    """The hash chain: seq 1..n without a gap; digest and hash are lowercase hex SHA-256."""

    seq = Column(BigInteger, primary_key=True, autoincrement=False)
    kind = Column(Text, nullable=False)
    ref = Column(Text, nullable=False)
    digest = Column(Text, nullable=False)
    prev_hash = Column(Text, nullable=False)
    hash = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class ChainedColumns(TypedColumns):
    """What every append-only table has: the entry of the chain that this row is."""

    seq = Column(BigInteger, ForeignKey("entries.seq"), primary_key=True, autoincrement=False)


class IdentityColumns(ChainedColumns):
    """One row, entry 1: which ledger this is."""

    ledger_id = Column(Text, nullable=False, unique=True)
    created_at = Column(Text, nullable=False)


class BudgetColumns(ChainedColumns):
    """A budget as it opened; the filter and the caps never change."""

    budget_id = Column(Text, nullable=False, unique=True)
    metric = Column(Text, nullable=False)
    period = Column(Text, nullable=False)
    filter = Column(Text, nullable=False)
    epsilon = Column(Text, nullable=False)
    delta = Column(Text, nullable=False)
    opened_at = Column(Text, nullable=False)


class GrantColumns(ChainedColumns):
    """One more allowance for a budget; spending stays."""

    budget_id = Column(Text, nullable=False, index=True)
    actor = Column(Text, nullable=False)
    reason = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class PlanColumns(ChainedColumns):
    """One promise; `body` is its frozen description as canonical JSON.

    `kind` is `single`, one release in the transaction of its charge; `growth`, several of them
    there; `month`, whose releases follow day by day and never cost again; or `live`, whose releases
    do so tick by tick, and where some may be left out.
    """

    plan_id = Column(Text, nullable=False, unique=True)
    kind = Column(Text, nullable=False)
    body = Column(Text, nullable=False)
    budget_id = Column(Text, ForeignKey("budgets.budget_id"), nullable=False, index=True)
    opened_at = Column(Text, nullable=False)


class ChargeColumns(ChainedColumns):
    """What a plan costs its budget, once; the cost is derived from `dp_event`."""

    plan_id = Column(Text, ForeignKey("plans.plan_id"), nullable=False, unique=True)
    budget_id = Column(Text, ForeignKey("budgets.budget_id"), nullable=False, index=True)
    dp_event = Column(Text, nullable=False)
    neighboring_relation = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class CommitmentColumns(ChainedColumns):
    """What a month plan's noise was committed to before the first of its releases, once.

    `digest` is the SHA-256 of a random salt and the noise, as lowercase hex; it tells nothing.
    """

    plan_id = Column(Text, ForeignKey("plans.plan_id"), nullable=False, unique=True)
    digest = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class ReleaseColumns(ChainedColumns):
    """A published number; `body` is the whole release as canonical JSON."""

    release_id = Column(Text, nullable=False, unique=True)
    plan_id = Column(Text, ForeignKey("plans.plan_id"), nullable=False)
    step = Column(Integer, CheckConstraint("step >= 0", name="step"), nullable=False)
    metric = Column(Text, nullable=False)
    day = Column(Text, nullable=False)
    window_days = Column(Integer, nullable=False)
    segment = Column(Text, nullable=True)
    body = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class AuditColumns(ChainedColumns):
    """What somebody did that must stay visible; `facts` never names a user."""

    at = Column(Text, nullable=False)
    actor = Column(Text, nullable=False)
    action = Column(Text, nullable=False)
    facts = Column(Text, nullable=False)


class ApiKeyColumns(ChainedColumns):
    """An API key: `hash` is SHA-256 of its 256-bit secret, `scopes` a JSON list."""

    key_id = Column(Text, nullable=False, unique=True)
    hash = Column(Text, nullable=False)
    scopes = Column(Text, nullable=False)
    label = Column(Text, nullable=False)
    created_at = Column(Text, nullable=False)
    expires_at = Column(Text, nullable=True)


class KeyRevocationColumns(ChainedColumns):
    """The end of an API key."""

    key_id = Column(Text, ForeignKey("api_keys.key_id"), nullable=False, unique=True)
    actor = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class KeyLimitColumns(ChainedColumns):
    """What an API key may ask in one window, as `100/second`; a key without one has no row."""

    key_id = Column(Text, ForeignKey("api_keys.key_id"), nullable=False, unique=True)
    rate_limit = Column(Text, nullable=False)


class KeySuccessionColumns(ChainedColumns):
    """The key that takes the place of another, which ends at `ends_at`."""

    key_id = Column(Text, ForeignKey("api_keys.key_id"), nullable=False, unique=True)
    successor = Column(Text, ForeignKey("api_keys.key_id"), nullable=False, unique=True)
    ends_at = Column(Text, nullable=False)
    at = Column(Text, nullable=False)


class KeyUseColumns(TypedColumns):
    """The hour in which an API key was last used, as far as that was written down."""

    key_id = Column(Text, ForeignKey("api_keys.key_id"), primary_key=True)
    used_at = Column(Text, nullable=False)


class BalanceColumns(TypedColumns):
    """What the charges of a budget add up to, as the database adds it: a guard, no decision.

    `spent` is in parts of one allowance, `PARTS` of them, each charge rounded down: so the CHECK
    never refuses what fits, and lets through less than one part a charge over the cap.
    """

    budget_id = Column(Text, ForeignKey("budgets.budget_id"), primary_key=True)
    allowances = Column(BigInteger, nullable=False)
    spent = Column(BigInteger, nullable=False)


class ProbeColumns(TypedColumns):
    """One row that `check_writable` overwrites; it says nothing."""

    probe_id = Column(Integer, primary_key=True, autoincrement=False)
    at = Column(Text, nullable=False)


entries: Final = Table("entries", METADATA, EntryColumns, CheckConstraint("seq >= 1", name="seq"))
identity: Final = Table("identity", METADATA, IdentityColumns)
budgets: Final = Table("budgets", METADATA, BudgetColumns)
grants: Final = Table("grants", METADATA, GrantColumns)
plans: Final = Table("plans", METADATA, PlanColumns)
charges: Final = Table("charges", METADATA, ChargeColumns)
commitments: Final = Table("commitments", METADATA, CommitmentColumns)
releases: Final = Table(
    "releases",
    METADATA,
    ReleaseColumns,
    UniqueConstraint("plan_id", "step"),
    Index("ix_releases_question", "metric", "day", "window_days", "segment"),
)
audit: Final = Table("audit", METADATA, AuditColumns)
api_keys: Final = Table("api_keys", METADATA, ApiKeyColumns)
key_revocations: Final = Table("key_revocations", METADATA, KeyRevocationColumns)
key_limits: Final = Table("key_limits", METADATA, KeyLimitColumns)
key_successions: Final = Table("key_successions", METADATA, KeySuccessionColumns)
key_uses: Final = Table("key_uses", METADATA, KeyUseColumns)
PARTS: Final = 10**15
balances: Final = Table(
    "balances",
    METADATA,
    BalanceColumns,
    CheckConstraint(f"spent >= 0 AND spent <= allowances * {PARTS}", name="spent"),
)
probe: Final = Table("probe", METADATA, ProbeColumns)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry: the table of its rows, and the column that names a row.

    A table without a key of its own names a row by its `seq`.
    """

    table: Table[Any]
    key: str

    def ref(self, row: Mapping[str, Any]) -> str:
        """The name of a row inside its kind."""
        return str(row[self.key])


KINDS: Final[Mapping[str, Kind]] = {
    "ledger": Kind(identity, "ledger_id"),
    "budget": Kind(budgets, "budget_id"),
    "grant": Kind(grants, "seq"),
    "plan": Kind(plans, "plan_id"),
    "charge": Kind(charges, "plan_id"),
    "commitment": Kind(commitments, "plan_id"),
    "release": Kind(releases, "release_id"),
    "audit": Kind(audit, "seq"),
    "api_key": Kind(api_keys, "key_id"),
    "key_revocation": Kind(key_revocations, "key_id"),
    "key_limit": Kind(key_limits, "key_id"),
    "key_succession": Kind(key_successions, "key_id"),
}

APPEND_ONLY: Final = ("entries", *(kind.table.name for kind in KINDS.values()))
