"""Looks at a running service once a minute: what `/metrics` tells of its state, and what is worth
an alert.

What other processes did, as `dpdau keys create` or a restore while nothing ran, is read out of the
audit log, from where the last look ended.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from dpdau.accounting.budget import epsilon_spent
from dpdau.app.alerts import Alerts
from dpdau.app.product import App
from dpdau.datadir import DataDir
from dpdau.domain import Metric, Scope, month_days, month_of
from dpdau.errors import DpdauError, LedgerCorruptError, NotFoundError
from dpdau.ledger.log import BUDGET_GRANTED, PAGE_ROWS_MAX, AuditEvent
from dpdau.plan import MonthPlan, month_plan_id
from dpdau.telemetry import Metrics, log, place_of

TURN_SECONDS: Final = 60.0
VERIFY_SECONDS: Final = 6 * 3600.0
CLOSE_SECONDS_MAX: Final = 2.0
DISK_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""What is told of the room on the disk."""
BAD_KEYS_MIN: Final = 20
"""As many requests without a valid key in one turn are worth an alert."""
BUDGET_STEPS: Final = (95, 80, 50)
ERASURE_DAYS: Final = 30
"""An erasure without a receipt is told for so long: asked for again, it has another name."""
ERASED: Final = "erase"
LOOK_BACK_DAYS: Final = 7
"""Where nobody knows how far the audit log was looked through, so much of it is told again."""
STRONG_SCOPES: Final = frozenset({Scope.ADMIN, Scope.ERASE})
_KIND_OF_ACTION: Final = {
    "key_created": "key_created",
    "key_revoked": "key_revoked",
    "card_key_created": "card_key_created",
    BUDGET_GRANTED: "budget_granted",
    "exact_read": "exact_read",
    "ledger_restored": "restored",
    "activity_restored": "restored",
}
_EVER: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_NEVER: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_LOG = log("watch")


def newest_backup(folder: DataDir) -> float | None:
    """When the newest backup of a directory was made; one that is being made is none."""
    made = [
        one.stat().st_mtime for one in folder.backups.glob("*") if not one.name.endswith(".partial")
    ]
    return max(made, default=None)


def free_step(ratio: float) -> float:
    """The room on a disk as it is told: the step that is still free, 0 below the first.

    Guarantee: while more than half is free it is 0.5, however many events there are.

    Example:
        >>> free_step(0.97), free_step(0.12), free_step(0.004)
        (0.5, 0.1, 0.0)
    """
    return max((one for one in DISK_STEPS if one <= ratio), default=0.0)


class StateGauges:
    """What a service tells of its state; only one that holds activity, so that no other tells 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"dpdau_{name}", text, registry=registry)

        self.watched_at = gauge("watch_timestamp_seconds", "When the state was last looked at.")
        self.ledger_sound = gauge("ledger_sound", "1 while the ledger verifies, else 0.")
        self.ledger_verified_at = gauge(
            "ledger_verified_timestamp_seconds", "When the whole ledger was last verified."
        )
        self.overdue = gauge(
            "release_overdue_seconds",
            "Since when the oldest closed day of a month plan waits to be released.",
        )
        self.disk_free = gauge(
            "disk_free_ratio", "Share of the disk of DATA_DIR that is free, in a few steps."
        )
        self.backup_at = gauge(
            "backup_timestamp_seconds", "When the newest backup in DATA_DIR was made; 0 for none."
        )
        self.erasures_outstanding = gauge(
            "erasures_outstanding",
            "Erasures of the last 30 days without a receipt: to be asked for again.",
        )


@dataclass(slots=True)
class _Seen:
    """How far the audit log was looked through, and what was told of the budgets.

    Attributes:
        seq: The last entry that was looked at.
        told: Budget → the highest step of which an alert was posted.
        since: What is older than this is not told.
        kept: What the file says: as the two above, without what was not delivered.
    """

    seq: int = 0
    told: dict[str, int] = field(default_factory=dict)
    since: dt.datetime = _EVER
    kept: tuple[int, dict[str, int]] | None = None


class Watch:
    """One thread that looks until it is stopped.

    Args:
        app: The product.
        owns: Whether it holds the activity and closes days. One that only passes events on sees
            what is asked of it, and leaves the rest to the one that does.
        metrics: Where the state is told.
        alerts: Who is told what must not wait.
        opening: Whether the schedule opens the plan of each month.
        verify_seconds: After how long the ledger is verified again.
        seconds: Seconds that never go back.
    """

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        alerts: Alerts,
        owns: bool,
        opening: bool,
        verify_seconds: float = VERIFY_SECONDS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._ledger = app.ledger
        self._metrics = metrics
        self._alerts = alerts
        self._opening = opening
        self._folder = DataDir(app.settings.DATA_DIR)
        self._owns = owns
        self._gauges = StateGauges(metrics.registry if owns else CollectorRegistry())
        self._gauges.ledger_sound.set(1)
        self._verify_seconds = verify_seconds
        self._seconds = seconds
        self._verified_at = -float("inf")
        self._refused: dict[str, float] = {}
        self._seen: _Seen | None = None
        self._pending: dict[str, dt.datetime] = {}
        self._erasures_seq = 0
        self._shown: set[tuple[str, str]] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Starts the thread; called once."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and sends what waits; may be called twice."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS_MAX)
        self._alerts.close()
        if self._seen is not None:
            # What left at the end needs not be told again by the next start.
            with contextlib.suppress(OSError):
                self._keep(self._seen)

    def turn(self) -> None:
        """Looks once. One thing that cannot be looked at hides no other."""
        looks: tuple[Callable[[], None], ...] = (
            self._look_at_refusals,
            self._app.callers.write_uses,
        )
        if self._owns:
            looks += (
                self._look_at_ledger,
                self._look_at_audit_log,
                self._look_at_budgets,
                self._look_at_plans,
                self._look_at_erasures,
                self._look_at_disk,
            )
        else:
            looks += (self._look_at_budgets,)
        failed = False
        for look in looks:
            try:
                look()
            except LedgerCorruptError as error:
                failed = True
                self._broken(error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a worker.
                failed = True
                facts = {"code": error.code} if isinstance(error, DpdauError) else place_of(error)
                _LOG.warning("look failed", look=look.__name__, **facts)
        if not failed:
            self._gauges.watched_at.set(self._now().timestamp())
        self._alerts.tend()

    def _run(self) -> None:
        """Turns until stopped."""
        self.turn()
        while not self._stopped.wait(TURN_SECONDS):
            self.turn()

    def _now(self) -> dt.datetime:
        return self._app.calendar.clock()

    def _look_at_ledger(self) -> None:
        """Verifies the whole ledger when it is time."""
        now = self._seconds()
        if now - self._verified_at < self._verify_seconds:
            return
        report = self._ledger.verify()
        self._verified_at = now
        self._gauges.ledger_verified_at.set(self._now().timestamp())
        if report.ok:
            self._gauges.ledger_sound.set(1)
        else:
            self._broken(report.problems[0])

    def _broken(self, problem: str) -> None:
        self._gauges.ledger_sound.set(0)
        self._alerts.post("ledger_broken", {"problem": problem})

    def _look_at_audit_log(self) -> None:
        """Tells what was done since the last look; of the first look ever, nothing."""
        seen = self._told_so_far()
        while page := self._ledger.audit_log(after=seen.seq):
            for one in page:
                if one.at >= seen.since:
                    self._tell(one)
                seen.seq = one.seq
        seen.since = _EVER
        self._keep(seen)

    def _tell(self, event: AuditEvent) -> None:
        kind = _KIND_OF_ACTION.get(event.action)
        if kind == "key_created" and STRONG_SCOPES & set(event.facts.get("scopes", ())):
            kind = "strong_key_created"
        if kind is not None:
            facts = {"actor": event.actor, "action": event.action, **event.facts}
            self._alerts.post(kind, facts, at=event.at, token=event.seq)

    def _look_at_budgets(self) -> None:
        """Shows what is spent this month and in the month of the newest closed day."""
        seen, shown = self._told_so_far() if self._owns else None, set()
        now, closed = self._app.calendar.today(), self._app.calendar.last_closed_day()
        for month in {month_of(now), month_of(closed)}:
            for state in self._ledger.states(month):
                held = state.budget
                share = round(epsilon_spent(held, state.spent) / held.guarantee()[0], 9)
                shown.add((held.metric, held.period))
                self._metrics.budget_spent.labels(held.metric, held.period).set(share)
                # A plan and the live counter spend their month at once, as they should.
                if held.metric in set(Metric) and seen is not None:
                    self._tell_share(seen, held.budget_id, held.metric, share)
        for one in self._shown - shown:
            # Nobody can act on a budget of a month that is over.
            with contextlib.suppress(KeyError):
                self._metrics.budget_spent.remove(*one)
        self._shown = shown

    def _tell_share(self, seen: _Seen, budget_id: str, metric: str, share: float) -> None:
        """Tells the highest step that a share has reached, once; a grant makes it lower again."""
        step = max((one for one in BUDGET_STEPS if 100 * share >= one), default=0)
        told = seen.told.get(budget_id, 0)
        if step == told:
            return
        if step > told:
            facts = {"budget": budget_id, "metric": metric, "spent_percent": int(100 * share)}
            self._alerts.post(f"budget_{step}", facts, subject=budget_id, token=budget_id)
        seen.told[budget_id] = step
        self._keep(seen)

    def _look_at_refusals(self) -> None:
        """Tells that keys are tried, and that budgets were found spent."""
        if self._newly_refused("not_authenticated") >= BAD_KEYS_MIN:
            self._alerts.post("bad_keys", {"seconds": int(TURN_SECONDS)})
        if self._newly_refused("budget_exhausted") > 0:
            self._alerts.post("budget_exhausted")

    def _newly_refused(self, code: str) -> float:
        """How many requests were refused since the last look; all fronts together."""
        name = "dpdau_refusals_total"
        known = self._metrics.registry.get_sample_value(name, {"code": code}) or 0.0
        before = self._refused.get(code, 0.0)
        self._refused[code] = known
        return known - before

    def _look_at_plans(self) -> None:
        """Shows for how long the oldest day waits that should have been released."""
        now, calendar = self._now(), self._app.calendar
        months = list(self._ledger.unfinished_months())
        current = month_of(calendar.last_closed_day())
        waiting = []
        if self._opening and self._ledger.find_plan(month_plan_id(current)) is None:
            waiting.append(month_days(current)[0])
        for month in months:
            stored = self._ledger.find_plan(month_plan_id(month))
            assert stored is not None, "an unfinished plan is there"
            plan = MonthPlan.from_json(stored.body)
            waiting.append(plan.first + dt.timedelta(days=plan.days_taken(stored.steps_taken)))
        late = [(now - calendar.closes_at(day)).total_seconds() for day in waiting]
        self._gauges.overdue.set(max([0.0, *late]))

    def _look_at_erasures(self) -> None:
        """Shows how many erasures are on record of which the store has no receipt."""
        since = self._now() - dt.timedelta(days=ERASURE_DAYS)
        while page := self._ledger.audit_log(since, after=self._erasures_seq):
            for one in page:
                if one.action == ERASED:
                    self._pending[str(one.facts["erasure_id"])] = one.at
            self._erasures_seq = page[-1].seq
            if len(page) < PAGE_ROWS_MAX:
                break
        for erasure_id, at in list(self._pending.items()):
            if at < since or self._is_done(erasure_id):
                del self._pending[erasure_id]
        self._gauges.erasures_outstanding.set(len(self._pending))

    def _is_done(self, erasure_id: str) -> bool:
        try:
            self._app.erasure(erasure_id)
        except NotFoundError:
            return False
        return True

    def _look_at_disk(self) -> None:
        """Shows the room on the disk, and how old the newest backup is."""
        usage = shutil.disk_usage(self._folder.root)
        self._gauges.disk_free.set(free_step(usage.free / usage.total))
        self._gauges.backup_at.set(newest_backup(self._folder) or 0.0)

    def _told_so_far(self) -> _Seen:
        """What was told before, from the file at first; where it does not say, of some days."""
        if self._seen is not None:
            return self._seen
        now = self._now()
        try:
            kept = json.loads(self._folder.alerts.read_bytes())
            seen = _Seen(int(kept["seq"]), {str(k): int(v) for k, v in kept["told"].items()})
            known = kept["ledger_id"] == self._ledger.ledger_id
            # An entry that is not there was read in a ledger that went further than this one.
            is_good = known and (
                seen.seq == 0 or bool(self._ledger.audit_log(after=seen.seq - 1, limit=1))
            )
        except FileNotFoundError:
            self._seen = _Seen(since=_NEVER)
            return self._seen
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_good = False
        if not is_good:
            seen = _Seen(since=now - dt.timedelta(days=LOOK_BACK_DAYS))
            _LOG.warning("alerts.json is of no use", told_again_days=LOOK_BACK_DAYS)
        self._seen = seen
        return seen

    def _keep(self, seen: _Seen) -> None:
        """Remembers what was delivered; a crash may tell something twice, and nothing less."""
        if seen.since != _EVER:
            # The log was not looked through yet: to remember a place in it would tell all of it.
            return
        waiting = self._alerts.undelivered()
        seq = min([seen.seq, *(one - 1 for one in waiting if isinstance(one, int))])
        before = {} if seen.kept is None else seen.kept[1]
        told = {one: step for one, step in seen.told.items() if one not in waiting}
        told |= {one: step for one, step in before.items() if one in waiting}
        if (seq, told) == seen.kept:
            return
        path = self._folder.alerts
        draft = path.with_suffix(".draft")
        body = {"ledger_id": self._ledger.ledger_id, "seq": seq, "told": told}
        handle = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(body, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        seen.kept = seq, told
