"""The ledger: what was spent and what was said, the only spender and the system of record."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpdau.accounting.budget import ALLOWANCES_MAX, Budget
from dpdau.domain import Clock, Figure, Metric, Release, Segment, Window
from dpdau.errors import InvalidPlanError
from dpdau.ledger import backup as backups
from dpdau.ledger.audit import AuditReport, verify
from dpdau.ledger.budgets import (
    BudgetState,
    budget_id_of,
    count_allowances,
    open_budgets,
    state_of,
)
from dpdau.ledger.chain import Chain, Head
from dpdau.ledger.copying import Moved, copy_into, new_target, require_empty
from dpdau.ledger.engine import STATEMENT_TIMEOUT_SECONDS, Database
from dpdau.ledger.keys import ApiKeys
from dpdau.ledger.log import (
    BUDGET_GRANTED,
    PAGE_ROWS,
    PAGE_ROWS_MAX,
    AuditEvent,
    EverySegment,
    ReleaseFilter,
    append_audit,
    audit_rows,
    count_releases,
    has_grant,
    latest_release,
    newest_series,
    plan_page,
    release_page,
    release_span,
)
from dpdau.ledger.steps import (
    MONTH,
    OpenRequest,
    StepRequest,
    StoredPlan,
    abandon,
    commit_noise,
    find_plan,
    open_plan,
    take_day,
    take_growth,
    take_month,
    take_step,
    take_tick,
    unfinished_months,
)
from dpdau.ledger.transactions import Transactions

if TYPE_CHECKING:
    from dpdau.telemetry import Metrics

GRANT_ID_LENGTH_MAX: Final = 128
BUSY_TIMEOUT_SECONDS: Final = 30.0


class Ledger:
    """Budgets, charges and releases in one append-only, hash-chained database.

    Guarantee: a release and its charge are committed together or not at all; a charge that does not
    fit is refused before the count is read; a step that was taken is replayed as it was stored; and
    whatever this object hands out is covered by the high-water mark, so an older copy of the file
    can not be opened afterwards.

    Args:
        url: `sqlite:///PATH`, where the file is made if it is missing, or a Postgres database that
            is there. The tables are made if they are missing.
        mark_path: The high-water mark's file, outside the folder that is backed up and restored. On
            Postgres each replica has its own.
        clock: What time it is.
        busy_timeout_seconds: How long to wait for another writer.
        statement_timeout_seconds: How long one statement may take on a server.
        metrics: Counts and times the transactions.

    Raises:
        LedgerCorruptError: The ledger is missing, older than the mark, or not the mark's.
        SchemaVersionError: A newer version wrote it.
        LedgerUnavailableError: It cannot be read or written.
    """

    def __init__(
        self,
        url: str,
        *,
        mark_path: Path,
        clock: Clock,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS,
        metrics: "Metrics | None" = None,
    ) -> None:
        database = Database(
            url,
            busy_timeout_seconds=busy_timeout_seconds,
            statement_timeout_seconds=statement_timeout_seconds,
            metrics=metrics,
        )
        self._transactions = Transactions(
            database, mark_path=mark_path, clock=clock, busy_timeout_seconds=busy_timeout_seconds
        )
        self.keys = ApiKeys(self._transactions)

    @property
    def ledger_id(self) -> str:
        """Which ledger this is, for as long as it lives."""
        return self._transactions.ledger_id

    @property
    def is_local(self) -> bool:
        """Whether a read is one of a file here: milliseconds, and no wait for a network."""
        return self._transactions.database.path is not None

    def step(
        self, request: StepRequest, make_release: Callable[[], Release]
    ) -> tuple[Release, bool]:
        """Charges a plan with one step, makes its release and stores both, in one transaction; or
        replays it.

        Args:
            request: What is asked, and what it costs.
            make_release: Reads the exact count and draws the noise. It is called once the charge
                has fitted, inside the transaction, and must not use the ledger. What it raises
                rolls the charge back. Should the database ask for the transaction again, it is
                called again, and what it gave first was seen by nobody.

        Returns:
            The release as stored, and whether it is a replay (no charge).

        Raises:
            BudgetExhaustedError: The charge does not fit; `facts["budget"]` is the budget block.
            InvalidPlanError: The plan id was used for another budget or another kind of plan, or
                the step is not 0.
            LedgerConflictError: Another writer held the ledger for too long.
        """
        return self._transactions.write(
            "step", lambda chain: take_step(chain, request, make_release)
        )

    def take_growth(
        self, request: OpenRequest, make: Callable[[], Sequence[Release]]
    ) -> tuple[tuple[Release, ...], bool]:
        """Charges a growth plan, makes its releases and stores all of it, in one transaction; or
        replays them.

        Args:
            request: What is asked, and what it costs; `releases` of its body says how many.
            make: Counts and draws the noise, under the rules of `make_release` in `step`.

        Returns:
            The releases as stored, and whether they are a replay (no charge).

        Raises: What `step` raises.
        """
        return self._transactions.write(
            "take_growth", lambda chain: take_growth(chain, request, make)
        )

    def open_plan(self, request: OpenRequest, kind: str = MONTH) -> bool:
        """Charges a month or live plan, in one transaction; or finds that it was charged.

        Returns:
            Whether it was charged now. If not, the plan is kept as it was first sent.

        Guarantee: a plan is charged once, however many ask at once; from then on `take_day`
        and `take_tick` charge nothing.

        Raises:
            BudgetExhaustedError: The charge does not fit; `facts["budget"]` is the budget block.
            InvalidPlanError: The plan id was used for another budget or another kind of plan.
            LedgerConflictError: Another writer held the ledger for too long.
        """
        return self._transactions.write("open_plan", lambda chain: open_plan(chain, request, kind))

    def find_plan(self, plan_id: str) -> StoredPlan | None:
        """A plan with its charge, its commitment and how far it has come; None if not open."""
        return self._transactions.read(
            "find_plan", lambda connection: find_plan(connection, plan_id)
        )

    def unfinished_months(self) -> tuple[str, ...]:
        """The months whose plan is open and has releases to come, oldest first."""
        return self._transactions.read("unfinished_months", unfinished_months)

    def commit_noise(self, plan_id: str, digest: str) -> None:
        """Writes down what the noise of a month plan is committed to, once.

        Args:
            plan_id: An open month plan.
            digest: SHA-256 of a random salt and the noise, as lowercase hex. The same again is
                fine.

        Raises:
            NotFoundError: The plan is not open.
            InvalidPlanError: It is no month plan.
            StoreCorruptError: It was committed to other noise: fresh noise for the same counts
                would void the charge.
        """
        self._transactions.write("commit_noise", lambda chain: commit_noise(chain, plan_id, digest))

    def abandon(self, plan_id: str, *, actor: str, reason: str) -> None:
        """Gives up the rest of a month plan for good; nothing is refunded.

        Raises:
            NotFoundError: The plan is not open.
            InvalidPlanError: It is no month plan or at its end, or no reason is given.
        """
        if not reason.strip():
            raise InvalidPlanError("Expected a reason for giving the plan up, found none.")
        self._transactions.write(
            "abandon", lambda chain: abandon(chain, plan_id, actor=actor, reason=reason)
        )

    def take_day(
        self, plan_id: str, first_step: int, make: Callable[[], Sequence[Release]]
    ) -> tuple[tuple[Release, ...], bool]:
        """Makes and stores the releases of the next day of a month plan, in one transaction; or
        replays a day.

        Args:
            plan_id: An open month plan that is committed to its noise.
            first_step: The step of the first release of the day; the steps of the others follow.
            make: Fixes the day, counts and adds the noise, under the rules of `make_release` in
                `step`. It gives the releases of one day, in order.

        Returns:
            The releases as stored, and whether they are a replay.

        Guarantee: nothing is charged; the steps of a plan are 0, 1, 2, … without a gap, at most as
        many as were paid for, each stored once.

        Raises:
            NotFoundError: The plan is not open.
            InvalidPlanError: It is no month plan, not committed to its noise or at its end, or the
                step is neither the next one nor the first of a day that was taken.
            LedgerConflictError: Another writer held the ledger for too long.
        """
        return self._transactions.write(
            "take_day", lambda chain: take_day(chain, plan_id, first_step, make)
        )

    def take_month(
        self, request: OpenRequest, digest: str, make: Callable[[], Sequence[Release]]
    ) -> tuple[tuple[Release, ...], bool]:
        """Charges a month plan, commits it to its noise as `commit_noise` does, and stores all its
        releases, in one transaction; or replays them. `make` is as in `take_growth`.

        Raises: What `step` raises; InvalidPlanError if the plan is open and goes on day by day.
        """
        return self._transactions.write(
            "take_month", lambda chain: take_month(chain, request, digest, make)
        )

    def take_tick(
        self, plan_id: str, step: int, make: Callable[[], Release]
    ) -> tuple[Release, bool]:
        """Makes and stores the release of one tick of a live plan, in one transaction; or replays.

        Args:
            plan_id: An open live plan that is committed to its noise.
            step: After the last one that was taken; those between are skipped for good.
            make: Counts and adds the noise, under the rules of `make_release` in `step`.

        Returns:
            The release as stored, and whether it is a replay.

        Raises:
            NotFoundError: The plan is not open.
            InvalidPlanError: It is no live plan or not committed to its noise, or the step was
                skipped or not paid for.
            LedgerConflictError: Another writer held the ledger for too long.
        """
        return self._transactions.write(
            "take_tick", lambda chain: take_tick(chain, plan_id, step, make)
        )

    def budget_state(self, budget: Budget) -> BudgetState:
        """The state of a budget as it opened, or as it would open now."""
        return self._transactions.read(
            "budget_state", lambda connection: state_of(connection, budget)
        )

    def states(self, period: str | None = None) -> tuple[BudgetState, ...]:
        """The states of all open budgets, of one month or of all."""
        return self._transactions.read(
            "states", lambda db: tuple(state_of(db, one) for one in open_budgets(db, period))
        )

    def find_release(
        self, metric: Metric | Figure, window: Window, segment: Segment | None = None
    ) -> Release | None:
        """The newest release that answers a question, if there is one."""
        return self._transactions.read(
            "find_release", lambda connection: latest_release(connection, metric, window, segment)
        )

    def editions(
        self, metric: Metric | Figure, window: Window, segment: Segment | None = None
    ) -> int:
        """How many releases answer a question: the number of the next fresh one."""
        return self._transactions.read(
            "editions", lambda connection: count_releases(connection, metric, window, segment)
        )

    def releases(
        self,
        *,
        metrics: Collection[Metric | Figure] | None = None,
        first: dt.date | None = None,
        last: dt.date | None = None,
        segment: Segment | EverySegment | None = "every",
        window_days: int | None = None,
        after: str | None = None,
        limit: int = PAGE_ROWS,
        newest_first: bool = False,
    ) -> tuple[list[Release], str | None]:
        """One page of the log of releases, oldest first unless `newest_first`.

        Args:
            metrics: These metrics; all if None.
            first: Target days from here on.
            last: Target days up to here.
            segment: One segment; None for the whole population; "every" for both.
            window_days: This window length; all if None.
            after: The cursor that the page before gave.
            limit: Rows of the page, 1..`PAGE_ROWS_MAX`.

        Returns:
            The releases, and the cursor of the next page if there is one.

        Raises:
            InvalidPlanError: The cursor is not one.
        """
        wanted = ReleaseFilter(
            metrics=metrics, first=first, last=last, segment=segment, window_days=window_days
        )
        return self._transactions.read(
            "releases",
            lambda db: release_page(
                db, wanted, after=after, limit=limit, newest_first=newest_first
            ),
        )

    def series(
        self,
        metrics: Sequence[Metric | Figure],
        first: dt.date,
        last: dt.date,
        segment: Segment | None = None,
    ) -> list[Release]:
        """The newest release of each metric, window and day, in day order."""
        return self._transactions.read(
            "series", lambda connection: newest_series(connection, metrics, first, last, segment)
        )

    def span(self) -> tuple[dt.date, dt.date] | None:
        """The first and the last target day of any DAU, WAU or MAU; None where there is none."""
        return self._transactions.read("span", release_span)

    def plans(
        self, *, after: str | None = None, limit: int = PAGE_ROWS, budget_id: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """One page of the plans with their charges, JSON-ready, and the cursor of the next.

        Raises:
            InvalidPlanError: The cursor is not one.
        """
        return self._transactions.read(
            "plans", lambda db: plan_page(db, after=after, limit=limit, budget_id=budget_id)
        )

    def grant(
        self, metric: str, period: str, *, actor: str, reason: str, grant_id: str = ""
    ) -> int:
        """Grants a budget one more allowance; what was spent stays spent and visible.

        Args:
            metric: The budget's metric.
            period: Its month.
            actor: Who grants.
            reason: Why.
            grant_id: A name that the caller made: a second grant with it changes nothing, so one
                whose outcome is unknown can be asked for again. Without a name, each is another.

        Returns:
            The allowances that the budget has now.

        Raises:
            InvalidPlanError: It has `ALLOWANCES_MAX` already, no reason is given, or the name is
                of a grant to another budget.
        """
        budget_id = budget_id_of(metric, period)
        if not reason.strip():
            raise InvalidPlanError("Expected a reason for the grant, found none.")
        if len(grant_id) > GRANT_ID_LENGTH_MAX:
            raise InvalidPlanError(
                f"Expected a grant id of at most {GRANT_ID_LENGTH_MAX} characters."
            )

        def unit(chain: Chain) -> int:
            if grant_id and has_grant(chain.connection, grant_id, budget_id):
                return count_allowances(chain.connection, budget_id)
            if count_allowances(chain.connection, budget_id) >= ALLOWANCES_MAX:
                raise InvalidPlanError(f"Expected at most {ALLOWANCES_MAX} allowances in a month.")
            row = {"budget_id": budget_id, "actor": actor, "reason": reason, "at": chain.at}
            chain.append("grant", row)
            allowances = count_allowances(chain.connection, budget_id)
            facts = {"budget_id": budget_id, "reason": reason, "allowances": allowances}
            facts |= {"grant_id": grant_id} if grant_id else {}
            append_audit(chain, actor=actor, action=BUDGET_GRANTED, facts=facts)
            return allowances

        return self._transactions.write("grant", unit)

    def audit_event(self, actor: str, action: str, facts: Mapping[str, Any]) -> int:
        """Writes one row of the audit log.

        Args:
            actor: Who did it: the label of an API key, or `operator`.
            action: What was done: `exact_read`, `erase`.
            facts: JSON-ready facts. Never a user id or a pseudonym: an erasure is named by its
                receipt.

        Returns:
            The number of the entry.
        """
        return self._transactions.write(
            "audit_event",
            lambda chain: append_audit(chain, actor=actor, action=action, facts=facts),
        )

    def audit_log(
        self, since: dt.datetime | None = None, *, after: int = 0, limit: int = PAGE_ROWS_MAX
    ) -> tuple[AuditEvent, ...]:
        """The audit log from an instant, or after an entry, on; oldest first."""
        return self._transactions.read(
            "audit_log", lambda one: audit_rows(one, since, after=after, limit=limit)
        )

    def verify(self) -> AuditReport:
        """Recomputes the chain, the books and the mark from the rows alone."""
        # The mark is read first: the ledger may move on meanwhile, never back.
        mark = self._transactions.mark.read()
        return self._transactions.database.run(
            "verify", lambda connection: verify(connection, mark), write=False
        )

    def check_writable(self) -> None:
        """Proves that a durable write works now.

        Raises:
            LedgerConflictError: Another writer held the ledger for too long.
            LedgerUnavailableError: A write fails.
        """
        self._transactions.check_writable()

    def backup(self, target: Path) -> Head:
        """Writes a consistent copy while the ledger is in use.

        Returns:
            The entry that the copy ends with.

        Raises:
            InvalidSettingError: The target exists.
            LedgerUnavailableError: The target cannot be written.
        """
        return backups.backup_ledger(self._transactions.database, target)

    def copy(self, url: str, *, moved: Moved = lambda _done, _all: None) -> AuditReport:
        """Copies the ledger into a new file or an empty database on a server, while nobody can
        write to it.

        Returns:
            The audit of the copy, which is the same ledger up to the same last entry.

        Guarantee: `copy_into`.

        Raises:
            InvalidSettingError: The target is not a URL of a ledger, is a file, or has a ledger.
            LedgerConflictError: Somebody wrote to the ledger meanwhile.
            LedgerCorruptError: The copy is not sound, because the ledger is not; nothing is left.
        """
        target = Database(url, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS)
        with new_target(target):
            # Before the lock is taken: one ledger cannot be copied into itself.
            target.run("check_empty", require_empty, write=False)
            return self._transactions.write(
                "copy_out", lambda chain: copy_into(chain.connection, target, moved=moved)
            )

    def close(self) -> None:
        """Closes every connection; may be called twice."""
        self._transactions.database.close()
