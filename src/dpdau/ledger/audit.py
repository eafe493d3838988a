"""The audit: recomputes the chain and the books from the rows alone, and says what is wrong."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, select

from dpdau.accounting.budget import Budget, Cost, cost_of, fits
from dpdau.accounting.events import from_json
from dpdau.errors import DpdauError
from dpdau.ledger.budgets import budget_of
from dpdau.ledger.canonical import release_from_json, release_to_json
from dpdau.ledger.chain import GENESIS_HASH, Entry, row_digest
from dpdau.ledger.mark import Mark
from dpdau.ledger.steps import AHEAD, AT_ONCE, LIVE, release_columns, releases_promised
from dpdau.ledger.tables import KINDS, Kind, entries

FINDINGS_MAX: Final = 100
_FETCH_ROWS: Final = 500
_UNREADABLE: Final = (
    DpdauError,
    AssertionError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading a row raises where its content is not what this version writes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction: a stable code, a sentence, and the entry that it is about."""

    code: str
    message: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit saw.

    Args:
        ledger_id: Which ledger, or "" where it has no identity.
        entries: Length of the chain.
        head_hash: The hash that stands for everything before it; worth keeping elsewhere.
        charges: Plans that were charged.
        releases: Numbers that were released.
        findings: At most `FINDINGS_MAX` contradictions; none in a sound ledger.
        finding_count: All of them.
    """

    ledger_id: str
    entries: int
    head_hash: str
    charges: int
    releases: int
    findings: tuple[Finding, ...]
    finding_count: int

    @property
    def ok(self) -> bool:
        """Whether the ledger is sound."""
        return self.finding_count == 0

    @property
    def problems(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(one.message for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What `dpdau audit --json` prints."""
        return {**asdict(self), "ok": self.ok}


class _Findings:
    """A bounded list of contradictions."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add(self, code: str, message: str, seq: int | None = None) -> None:
        """Keeps one more, up to the limit."""
        self.count += 1
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(Finding(code, message, seq))


def verify(connection: Connection, mark: Mark | None) -> AuditReport:
    """Recomputes everything in one read snapshot.

    Guarantee: without findings, the entries 1..n are the chain of exactly the rows that are stored,
    each release has its charge, each charge for releases at once has all of them, the steps of each
    plan run 0, 1, 2, … up to what was paid for (of a live plan some are left out, and none comes
    after a later one), those of a month or live plan follow its commitment, no budget was over its
    cap at any moment, and the mark is an entry of this chain.
    """
    findings = _Findings()
    rows = {name: _Rows(connection, of, findings) for name, of in KINDS.items()}
    books = _Books(findings)
    previous, count, marked = GENESIS_HASH, 0, None
    statement = select(entries).order_by(entries.c.seq).execution_options(yield_per=_FETCH_ROWS)
    for link in connection.execute(statement).mappings():
        seq = link["seq"]
        if seq != count + 1:
            findings.add("gap", f"Expected entry {count + 1}, found entry {seq}.", count + 1)
        if not isinstance(seq, int):
            continue
        _check_link(link, previous, findings)
        row = _row_of(link, rows, findings)
        if row is not None:
            books.post(link["kind"], row, seq)
        if mark is not None and seq == mark.seq:
            marked = link["hash"]
        previous, count = link["hash"], seq
    for stream in rows.values():
        stream.finish()
    books.close()
    if mark is None:
        findings.add("mark", "Expected a high-water mark beside the ledger, found none.")
    elif (books.ledger_id, marked) != (mark.ledger_id, mark.hash):
        findings.add(
            "mark",
            f"Expected entry {mark.seq} of ledger {mark.ledger_id} as the high-water mark has it, "
            f"found a chain of {count} entries without it.",
            mark.seq,
        )
    return AuditReport(
        ledger_id=books.ledger_id,
        entries=count,
        head_hash=str(previous),
        charges=books.charges,
        releases=books.releases,
        findings=tuple(findings.kept),
        finding_count=findings.count,
    )


def _check_link(link: Any, previous: str, findings: _Findings) -> None:
    """An entry follows the one before it, and its hash is over its own parts."""
    seq = link["seq"]
    if link["prev_hash"] != previous:
        findings.add("link", f"Entry {seq} does not follow the entry before it.", seq)
    entry = Entry(
        prev_hash=str(link["prev_hash"]),
        seq=seq,
        kind=str(link["kind"]),
        ref=str(link["ref"]),
        digest=str(link["digest"]),
        at=str(link["at"]),
    )
    if entry.hash() != link["hash"]:
        findings.add("hash", f"Entry {seq} does not have the hash of its own parts.", seq)


def _row_of(link: Any, rows: dict[str, "_Rows"], findings: _Findings) -> dict[str, Any] | None:
    """The typed row of an entry, if it is there and unchanged."""
    seq, kind = link["seq"], link["kind"]
    if kind not in rows:
        findings.add("kind", f"Entry {seq} is of an unknown kind.", seq)
        return None
    row = rows[kind].take(seq)
    if row is None:
        findings.add("row_missing", f"Entry {seq} ({kind}) has no row.", seq)
        return None
    try:
        digest = row_digest(row)
    except (TypeError, ValueError):
        digest = ""
    if digest != link["digest"] or KINDS[kind].ref(row) != link["ref"]:
        findings.add("row_changed", f"The row of entry {seq} ({kind}) was changed.", seq)
        return None
    return row


class _Rows:
    """The rows of one table in the order of the chain."""

    def __init__(self, connection: Connection, kind: Kind, findings: _Findings) -> None:
        self._name = kind.table.name
        self._findings = findings
        statement = (
            select(kind.table)
            .order_by(kind.table.c["seq"])
            .execution_options(yield_per=_FETCH_ROWS)
        )
        self._rows: Iterator[Any] = iter(connection.execute(statement).mappings())
        self._next = next(self._rows, None)

    def take(self, seq: int) -> dict[str, Any] | None:
        """The row of an entry; rows that come before it have no entry."""
        while self._next is not None and (
            not isinstance(self._next["seq"], int) or self._next["seq"] < seq
        ):
            self._report()
        if self._next is None or self._next["seq"] != seq:
            return None
        found = dict(self._next)
        self._next = next(self._rows, None)
        return found

    def finish(self) -> None:
        """Reports the rows that no entry asked for."""
        while self._next is not None:
            self._report()

    def _report(self) -> None:
        """One row without an entry."""
        assert self._next is not None
        self._findings.add(
            "row_without_entry",
            f"A row of {self._name} with seq {self._next['seq']} has no entry.",
        )
        self._next = next(self._rows, None)


class _Books:
    """The budgets, posted again in the order of the chain."""

    def __init__(self, findings: _Findings) -> None:
        self.ledger_id = ""
        self.charges = 0
        self.releases = 0
        self._findings = findings
        self._budgets: dict[str, Budget] = {}
        self._grants: dict[str, int] = {}
        self._spent: dict[str, Cost] = {}
        self._plans: dict[str, dict[str, Any]] = {}
        self._charged: set[str] = set()
        self._committed: set[str] = set()
        self._steps: dict[str, int] = {}
        self._promised: dict[str, int] = {}

    def post(self, kind: str, row: dict[str, Any], seq: int) -> None:
        """Applies one row."""
        try:
            match kind:
                case "ledger":
                    self.ledger_id = row["ledger_id"]
                case "budget":
                    self._budgets[row["budget_id"]] = budget_of(row)
                case "grant":
                    budget_id = row["budget_id"]
                    self._grants[budget_id] = self._grants.get(budget_id, 0) + 1
                case "plan":
                    self._plans[row["plan_id"]] = row
                case "charge":
                    self._charge(row, seq)
                case "commitment":
                    self._commit(row, seq)
                case "release":
                    self._release(row, seq)
        except _UNREADABLE as error:
            self._findings.add("unreadable", f"Entry {seq} ({kind}) is unreadable: {error}.", seq)

    def close(self) -> None:
        """What must be true at the end: no promise without its charge and its release."""
        for plan_id, plan in self._plans.items():
            if plan_id not in self._charged:
                self._findings.add(
                    "plan_without_charge", f"Plan {plan_id} was never charged.", plan["seq"]
                )
            self._check_whole(plan)

    def _check_whole(self, plan: dict[str, Any]) -> None:
        """A plan whose releases share the transaction of its charge has all of them."""
        if plan["kind"] not in AT_ONCE:
            return
        try:
            promised = releases_promised(plan["kind"], json.loads(plan["body"]))
        except _UNREADABLE:
            promised = 1
        found = self._steps.get(plan["plan_id"], 0)
        if found < promised:
            self._findings.add(
                "charge_without_release",
                f"Expected {promised} releases of plan {plan['plan_id']}, found {found}.",
                plan["seq"],
            )

    def _charge(self, row: dict[str, Any], seq: int) -> None:
        """A charge belongs to a plan of the same open budget, and fits what was left then."""
        self.charges += 1
        plan_id, budget_id = row["plan_id"], row["budget_id"]
        if plan_id in self._charged:
            self._findings.add("charged_twice", f"Plan {plan_id} was charged before.", seq)
        self._charged.add(plan_id)
        plan, budget = self._plans.get(plan_id), self._budgets.get(budget_id)
        if plan is None or budget is None or plan["budget_id"] != budget_id:
            self._findings.add(
                "charge_without_plan", f"Charge {plan_id} has no plan or no open budget.", seq
            )
            return
        event = from_json(json.loads(row["dp_event"]))
        budget = replace(budget, allowances=1 + self._grants.get(budget_id, 0))
        spent = self._spent.get(budget_id, Cost())
        if not fits(budget, spent, event):
            self._findings.add(
                "over_cap", f"Charge {plan_id} took budget {budget_id} over its cap.", seq
            )
        self._spent[budget_id] = spent + cost_of(event)

    def _commit(self, row: dict[str, Any], seq: int) -> None:
        """A commitment belongs to a charged month or live plan, and is its only one."""
        plan_id = row["plan_id"]
        plan = self._plans.get(plan_id)
        if plan is None or plan["kind"] not in AHEAD or plan_id not in self._charged:
            self._findings.add(
                "commitment_without_plan",
                f"The commitment of {plan_id} has no charged plan.",
                seq,
            )
        if plan_id in self._committed:
            self._findings.add("committed_twice", f"Plan {plan_id} was committed before.", seq)
        self._committed.add(plan_id)

    def _release(self, row: dict[str, Any], seq: int) -> None:
        """A release belongs to a charged plan, and its columns say what its bytes say."""
        self.releases += 1
        plan_id = row["plan_id"]
        step = self._next_step(row)
        self._steps[plan_id] = step + 1
        if plan_id not in self._charged:
            self._findings.add(
                "release_without_charge", f"Release {row['release_id']} was not charged.", seq
            )
        self._check_step(row, step, seq)
        release = release_from_json(row["body"])
        columns = release_columns(release)
        same = all(row[name] == value for name, value in columns.items())
        if not same or release_to_json(release).decode("ascii") != row["body"]:
            self._findings.add(
                "release_body", f"Release {row['release_id']} differs from its columns.", seq
            )

    def _next_step(self, row: dict[str, Any]) -> int:
        """The step that a release should be: the next one, or for a live plan that or a later."""
        plan_id = row["plan_id"]
        plan, following = self._plans.get(plan_id), self._steps.get(plan_id, 0)
        if plan is not None and plan["kind"] == LIVE:
            return max(following, int(row["step"]))
        return following

    def _check_step(self, row: dict[str, Any], step: int, seq: int) -> None:
        """A release is the next step of its plan, was paid for, and rests on committed noise."""
        plan_id = row["plan_id"]
        if row["step"] != step:
            self._findings.add(
                "step_out_of_order",
                f"Expected step {step} of plan {plan_id}, found step {row['step']}.",
                seq,
            )
        plan = self._plans.get(plan_id)
        if plan is None:
            return
        if plan["kind"] in AHEAD and plan_id not in self._committed:
            self._findings.add(
                "release_without_commitment",
                f"Release {row['release_id']} came before plan {plan_id} committed to its noise.",
                seq,
            )
        if plan_id not in self._promised:
            self._promised[plan_id] = releases_promised(plan["kind"], json.loads(plan["body"]))
        if step >= self._promised[plan_id]:
            self._findings.add(
                "step_not_paid", f"Step {step} of plan {plan_id} was never paid for.", seq
            )
