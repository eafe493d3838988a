"""Opens live plans and takes their ticks: one charge for the month, then a number for each tick.

A tick is one transaction of the ledger: who is active on the day so far is counted, noise that was
drawn when the plan opened is added, and the number is recorded. A tick that was missed is skipped,
for a later count is not the one of its moment. The last tick of a day counts the day at its end,
before its grace hours: it is close to the DAU of the day, and the month plan's DAU is the final
one.
"""

import datetime as dt
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dpdau import __version__, aggregates
from dpdau import plan as plans
from dpdau.activity.store import ActivityStore
from dpdau.domain import Figure, Release, Window, month_of
from dpdau.errors import StoreCorruptError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.steps import LIVE, OpenRequest, StoredPlan
from dpdau.mechanisms.matrix.lattice import LatticeStrategy
from dpdau.plan import LivePlan, PrivacyTerms
from dpdau.release.calendar import Calendar
from dpdau.release.noise import NoiseDesk, commitment_of, noise_of, secret_of

TICK_LATE_MAX: Final = dt.timedelta(minutes=5)
"""A tick that was not taken by then is skipped."""
_ONE_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tick:
    """The moment (UTC) of a tick, 1 to the ticks of a day; the last one is the day's end."""

    day: dt.date
    number: int
    at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReleaser:
    """Everything that a live plan needs to be opened and to be taken to its end."""

    store: ActivityStore
    ledger: Ledger
    desk: NoiseDesk
    terms: PrivacyTerms
    calendar: Calendar
    strategy: Callable[[], LatticeStrategy]
    sketch_impl: str
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_on(self) -> bool:
        """Whether there is a live counter."""
        return self.terms.live_epsilon is not None

    def find(self, month: str) -> StoredPlan | None:
        """The live plan of a month as the ledger has it, if it was opened."""
        return self.ledger.find_plan(plans.live_plan_id(month))

    def open(self, today: dt.date) -> bool:
        """Charges the live plan of the rest of a month, and draws all its noise; or finds it done.

        Returns:
            Whether this call made the charge.

        Raises:
            BudgetExhaustedError: The charge does not fit.
            StoreUnavailableError: Another process writes the store. The charge may be made; the
                next call draws the noise.

        Guarantee: it depends on the clock and the settings, and on nothing in the store. The noise
        is drawn once: what was drawn is committed to before it is used, and is never drawn anew.
        """
        with self._opening:
            month = month_of(today)
            stored = self.find(month)
            if stored is not None and stored.commitment is not None:
                return False
            # The store is asked first: where it is busy, nothing is charged.
            self.store.live.open(month)
            plan = self._promise(today) if stored is None else LivePlan.from_json(stored.body)
            request = OpenRequest(plan.plan_id, plan.to_json(), plan.budget, plan.charge)
            charged = stored is None and self.ledger.open_plan(request, LIVE)
            self._prepare(month)
            return charged

    def tend(self, *, opening: bool) -> list[Release]:
        """Does what the clock asks for: takes the tick that is due, and ends what is over.

        Args:
            opening: Whether to open the plan of this month.

        Returns:
            The tick that was taken, if any.
        """
        today = self.calendar.today()
        taken = self._take_due() if self.is_on else []
        # Before the next day begins, the last tick of the one before was taken or is skipped.
        self.store.live.end(today)
        if self.is_on:
            if opening:
                self.open(today)
            if self.find(month_of(today)) is not None:
                self.store.live.begin(today)
        return taken

    def next_due(self) -> dt.datetime | None:
        """When the next tick is due; None without an open plan."""
        today = self.calendar.today()
        stored = self.find(month_of(today)) if self.is_on else None
        if stored is None:
            return None
        ticks = LivePlan.from_json(stored.body).ticks
        passed = self._passed(today, ticks)
        return self._at(today, passed + 1, ticks)

    def released(self, day: dt.date) -> list[Release]:
        """The ticks of a day that were released, in order."""
        found, _next = self.ledger.releases(metrics=[Figure.LIVE], first=day, last=day)
        return found

    def _take_due(self) -> list[Release]:
        """Takes the newest tick that has come, unless it was taken or it is too late for it."""
        due = self._due()
        stored = None if due is None else self.find(month_of(due.day))
        if due is None or stored is None:
            return []
        plan = LivePlan.from_json(stored.body)
        self.calendar.require_zone(plan.timezone, plan.plan_id)
        if due.day < plan.first or self.calendar.clock() - due.at > TICK_LATE_MAX:
            return []
        step = plan.step(due.day, due.number)
        if step < stored.steps_taken:
            return []
        if stored.commitment is None:
            self.open(due.day)
            stored = self.find(plan.month)
            assert stored is not None, "an open plan stays open"
        noise = noise_of(
            self.store.live.secret(plan.month), commitment=stored.commitment, plan_id=plan.plan_id
        )
        release, replayed = self.ledger.take_tick(
            plan.plan_id, step, lambda: self._make(plan, due, step, noise, stored.steps_taken)
        )
        return [] if replayed else [release]

    def _due(self) -> Tick | None:
        """The newest tick that has come: of today, or the last one of yesterday."""
        today = self.calendar.today()
        for day in (today, today - _ONE_DAY):
            stored = self.find(month_of(day))
            if stored is not None:
                ticks = LivePlan.from_json(stored.body).ticks
                passed = self._passed(day, ticks)
                if passed:
                    return Tick(day, passed, self._at(day, passed, ticks))
        return None

    def _passed(self, day: dt.date, ticks: int) -> int:
        """How many ticks of a day have come."""
        now = self.calendar.clock()
        return sum(self._at(day, number, ticks) <= now for number in range(1, ticks + 1))

    def _at(self, day: dt.date, number: int, ticks: int) -> dt.datetime:
        """The moment of a tick: evenly over the day, also where it has 23 or 25 hours."""
        start = self.calendar.begins_at(day)
        return start + (self.calendar.begins_at(day + _ONE_DAY) - start) * number / ticks

    def _promise(self, first: dt.date) -> LivePlan:
        """The plan that opening now makes."""
        return plans.live(
            first, timezone=self.calendar.zone.key, terms=self.terms, strategy=self.strategy()
        )

    def _prepare(self, month: str) -> None:
        """Draws the noise, keeps it in the private store, and commits to it in the ledger."""
        stored = self.find(month)
        assert stored is not None, "a plan that was charged is there"
        secret = self.store.live.secret(month)
        if secret is None:
            drawn = self.desk.draw(LivePlan.from_json(stored.body).draw)
            secret = self.store.live.put_secret(month, secret_of(drawn))
        self.ledger.commit_noise(stored.plan_id, commitment_of(secret))

    def _make(
        self, plan: LivePlan, due: Tick, step: int, noise: tuple[int, ...], taken: int
    ) -> Release:
        """Counts the day so far, adds the tick's noise and words the number.

        Raises:
            StoreCorruptError: The store is older than the ledger: who left the day since then
                would be counted again.
        """
        noted = self.store.live.step(plan.month)
        if taken > 0 and (noted is None or noted < taken - 1):
            raise StoreCorruptError(
                f"Expected an activity store that knows step {taken - 1} of plan {plan.plan_id}, "
                f"found one that ends at {noted}: it is an older copy. Put the newer one back, or "
                "go on without live counts to the end of the month.",
                plan_id=plan.plan_id,
            )
        self.store.live.begin(due.day)
        self.store.live.advance(plan.month, step)
        count = aggregates.live_count(self.store, due.day, steps=plan.days * plan.ticks)
        value, half = round(plan.estimate(step, count, noise)), plan.half_width(step)
        return Release(
            release_id=f"rel-{secrets.token_hex(12)}",
            plan_id=plan.plan_id,
            step=step,
            metric=Figure.LIVE,
            window=Window(due.day, 1),
            segment=None,
            timezone=plan.timezone,
            estimate=value,
            lower_95=value - half,
            upper_95=value + half,
            noise_stddev=plan.stddev(step),
            mechanism=plan.mechanism,
            sketch_impl=self.sketch_impl,
            epsilon=float(plan.epsilon),
            delta=float(plan.delta),
            status="live",
            version=__version__,
            released_at=self.calendar.clock(),
        )
