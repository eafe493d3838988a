"""The JSON that each command prints with `--json`, as shapes.

A shape lists the members that are always there; a later version may add members and never takes
one away or gives it another meaning. What HTTP answers too has the shape of the HTTP answer.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dpdau.api.schemas import (
    AnswerShape,
    BudgetShape,
    GrowthShape,
    IngestShape,
    MonthQuoteShape,
    MonthStatusShape,
    QuoteShape,
    ReceiptShape,
)

Instant = str
Day = str


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow")


class VersionLine(_Shape):
    """`dpdau version`."""

    name: Literal["dpdau"]
    version: str


class ExactCount(_Shape):
    """One exact count; private."""

    metric: Literal["dau", "wau", "mau"]
    day: Day
    window_days: int
    segment: str | None
    exact: int


class CheckFinding(_Shape):
    """What one check of `dpdau doctor` found."""

    name: str
    status: Literal["ok", "warning", "problem"]
    message: str
    todo: str = Field(description="What to do; empty where all is well.")
    exit_code: int


class AuditFinding(_Shape):
    """One contradiction in a ledger."""

    code: str
    message: str
    seq: int | None


class AuditResult(_Shape):
    """What an audit of a ledger saw."""

    ledger_id: str
    entries: int
    head_hash: str = Field(description="Stands for everything before it; worth keeping elsewhere.")
    charges: int
    releases: int
    findings: list[AuditFinding]
    finding_count: int
    ok: bool


class AuditLogEntry(_Shape):
    """One entry of the audit log."""

    seq: int
    at: Instant
    actor: str
    kind: str
    action: str
    facts: dict[str, Any]


class AuditAnswer(AuditResult):
    """`dpdau audit`: the audit and, with --since, the log."""

    log: list[AuditLogEntry]


class NewKey(_Shape):
    """A key that was made; it is shown once."""

    key_id: str
    api_key: str = Field(description="The secret; only here.")
    scopes: list[str]


class RotatedKey(NewKey):
    """The key that takes the place of another; it is shown once."""

    replaces: str
    replaced_until: Instant = Field(description="When the old key ends.")


class StoredKey(_Shape):
    """A stored key, without its secret."""

    key_id: str
    label: str
    scopes: list[str]
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    rate_limit: str | None
    replaced_by: str | None
    last_used: Instant | None = Field(description="The hour in which it was last used.")


class SettingRow(_Shape):
    """One setting, with its value; secrets are hidden."""

    name: str
    value: str
    source: str
    default: str
    description: str


class KeptTombstones(_Shape):
    """What an open plan keeps of erased users."""

    kept_for: str
    through: Day
    pseudonyms: int
    overdue: bool


class RemovalProof(_Shape):
    """What was looked at for a proof of removal, and what was found."""

    ok: bool
    stores: list[str]
    files: int
    bytes: int
    rows: int
    keys_searched: int | None
    id_searched: bool
    found: list[str]
    user_tombstones: list[str]
    problems: list[str]
    tombstones: list[KeptTombstones]
    unread: list[str] = Field(description="Encrypted backups, which were not searched.")


class FlushResult(_Shape):
    """`dpdau flush-deletes`."""

    months_ended: list[str]
    leftovers: list[str]
    bytes_before: int
    bytes_after: int
    proof: RemovalProof | None


class LedgerCopy(_Shape):
    """A copy of the ledger in a file."""

    path: str
    entries: int
    head_hash: str


class WholeCopy(LedgerCopy):
    """A copy of everything."""

    made_at: Instant
    version: str
    files: int
    bytes: int


class MadeLedgerCopy(LedgerCopy):
    """A copy of the ledger that was just made."""

    deleted: list[str] = Field(description="Older backups that went, under --keep or --keep-days.")


class MadeWholeCopy(WholeCopy):
    """A copy of everything that was just made, in a folder or an encrypted file."""

    deleted: list[str] = Field(description="Older backups that went, under --keep or --keep-days.")


class RestoreResult(_Shape):
    """What bringing a folder back did, or would do."""

    backup: WholeCopy
    keeps_ledger: bool
    unchanged: bool
    entries_since: int
    erasures_since: list[str]
    plans_since: list[str]
    abandoned: list[str]
    reads_again: bool


class ConsumeStanding(_Shape):
    """How far consuming is; one JSON object a line."""

    received: int
    accepted: int
    duplicate: int
    late: int
    partitions: int
    lag_seconds: int
    trouble: str | None
    lost: int


class KeyRotation(_Shape):
    """What is to happen to the pseudonym keys."""

    epoch_id: int
    effective: Day
    next_rotation: Day
    older_until: Day
    first_day: Day
    live_keys: int


class ExperimentResult(_Shape):
    """`dpdau eval`."""

    about: dict[str, Any]
    summary: list[dict[str, Any]]


class Guarantee(_Shape):
    """A pair (ε, δ)."""

    epsilon: float
    delta: float


class Implied(_Shape):
    """What is guaranteed for a month, and what follows from it."""

    month: Guarantee
    one_replaced: Guarantee
    year_added: Guarantee
    year_rho_added: Guarantee


class CardBudget(Implied):
    """One budget of the month that was charged."""

    budget: str
    filter: Literal["basic", "zcdp"]
    mechanisms: list[str]
    releases: int
    allowances: int
    rho_spent: str = Field(description="Exact, as a fraction.")
    epsilon_charged: float


class CardSeries(_Shape):
    """The numbers of one metric, window and segment."""

    metric: str
    window_days: int
    segment: str | None
    numbers: int
    half_width_95_max: int = Field(description="Users.")


class CardPublished(_Shape):
    """What was published about days of the month."""

    numbers: int
    days: int
    days_of_month: int
    releases_sha256: str
    series: list[CardSeries]


class CardLedger(_Shape):
    """The ledger that a card was made from."""

    id: str
    entries: int
    head_hash: str


class CardAllowance(Guarantee):
    """A budget of the month to which nothing was charged."""

    budget: str


class CardStatement(_Shape):
    """What a privacy card says; this is what is signed, as canonical JSON."""

    format: Literal[1]
    month: str
    issued_at: Instant
    timezones: list[str]
    unit: Literal["user"]
    neighboring_relation: Literal["add_or_remove_one"]
    published: CardPublished
    budgets: list[CardBudget]
    together: Implied
    not_charged_yet: list[CardAllowance]
    code_versions: list[str]
    ledger: CardLedger


class SignedCard(_Shape):
    """`dpdau card`: a statement with its signature."""

    statement: CardStatement
    public_key: str = Field(pattern=r"^ed25519:")
    signature: str = Field(description="Base64.")


class VerifiedCard(SignedCard):
    """`dpdau card verify`: a card that is sound."""

    key_compared: bool = Field(description="Whether --key was given, and is the one that signed.")


class PublicKey(_Shape):
    """The key that readers verify cards with."""

    public_key: str = Field(pattern=r"^ed25519:")


class CommandError(_Shape):
    """What a command that fails prints on standard error with --json; further members are facts."""

    code: str
    detail: str


OUTPUTS: Final[dict[str, Any]] = {
    "audit": AuditAnswer,
    "backup": MadeLedgerCopy | MadeWholeCopy,
    "budget": BudgetShape | list[BudgetShape],
    "card": SignedCard,
    "card key": PublicKey,
    "card verify": VerifiedCard,
    "config show": list[SettingRow],
    "consume": ConsumeStanding,
    "dau": AnswerShape | QuoteShape,
    "doctor": list[CheckFinding],
    "erase": ReceiptShape,
    "erasure": ReceiptShape,
    "eval": ExperimentResult,
    "exact": list[ExactCount],
    "flush-deletes": FlushResult,
    "growth": GrowthShape,
    "ingest": IngestShape,
    "keys create": NewKey,
    "keys list": list[StoredKey],
    "keys rotate": RotatedKey,
    "keys revoke": StoredKey,
    "ledger copy": AuditResult,
    "mau": AnswerShape | QuoteShape,
    "plan abandon": MonthStatusShape,
    "plan open": MonthStatusShape,
    "plan price": MonthQuoteShape,
    "plan show": MonthStatusShape,
    "plots": list[str],
    "release": list[AnswerShape] | MonthQuoteShape,
    "reset-budget": BudgetShape,
    "restore": AuditResult | RestoreResult,
    "rotate-salt": KeyRotation,
    "series": list[AnswerShape],
    "version": VersionLine,
    "wau": AnswerShape | QuoteShape,
}
"""Command → what it prints with `--json`; each command that has the option is here."""


def json_schemas() -> dict[str, Any]:
    """One JSON Schema document: `commands` by name, `error`, and what they share in `$defs`."""
    inputs: list[tuple[str, Literal["serialization"], TypeAdapter[Any]]] = [
        (name, "serialization", TypeAdapter(shape))
        for name, shape in {**OUTPUTS, "": CommandError}.items()
    ]
    found, shared = TypeAdapter.json_schemas(inputs)
    by_name = {name: schema for (name, _), schema in found.items()}
    error = by_name.pop("")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What dpdau prints with --json",
        "commands": by_name,
        "error": error,
        "$defs": shared["$defs"],
    }
