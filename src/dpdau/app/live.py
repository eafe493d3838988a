"""The live counter as the fronts see it: today's ticks, and what they cost."""

import datetime as dt
import threading
from functools import partial
from typing import Final, Self

from dpdau import plan as promises
from dpdau.app.months import Months
from dpdau.domain import BudgetBlock, Release
from dpdau.errors import NotFoundError
from dpdau.ledger.statement import Statements
from dpdau.mechanisms.matrix.live import live_strategy
from dpdau.plan import LivePlan
from dpdau.release import LiveReleaser

_ONE_DAY: Final = dt.timedelta(days=1)


class Live:
    """The live counter of a product; off where there is no ε for it.

    Args:
        releaser: Opens live plans and takes their ticks.
        statements: Reads budgets.
        opening: Whether `take_due` opens the plan of a month.
    """

    def __init__(self, releaser: LiveReleaser, statements: Statements, *, opening: bool) -> None:
        self._releaser = releaser
        self._statements = statements
        self._opening = opening
        self._lock = threading.Lock()
        self._recent: tuple[Release, ...] | None = None

    @classmethod
    def beside(cls, months: Months, ticks: int, *, opening: bool) -> Self:
        """A live counter with so many ticks a day, over what month plans are made with."""
        made = months.releaser
        releaser = LiveReleaser(
            store=made.store,
            ledger=made.ledger,
            desk=made.desk,
            terms=made.terms,
            calendar=made.calendar,
            strategy=partial(live_strategy, ticks),
            sketch_impl=made.sketch_impl,
        )
        return cls(releaser, months.statements, opening=opening)

    def since(self, release_id: str | None) -> tuple[Release, ...]:
        """The ticks that were released after one; today's so far where it is not a recent one.

        Cheap: it reads the ledger once after each turn.

        Raises:
            NotFoundError: The live counter is off.
        """
        if not (self._releaser.is_on and self._opening):
            raise NotFoundError("Expected a live counter that is on; set LIVE_EPSILON.")
        with self._lock:
            recent = self._recent = self._known()
        for place, one in enumerate(recent):
            if one.release_id == release_id:
                return recent[place + 1 :]
        today = self._releaser.calendar.today()
        return tuple(one for one in recent if one.window.end == today)

    def take_due(self) -> int:
        """Takes the tick that is due, opens the month's plan, and ends days that are over.

        Returns:
            How many numbers were released.
        """
        try:
            return len(self._releaser.tend(opening=self._opening))
        finally:
            # A tick may be released although the turn failed: the ledger knows.
            with self._lock:
                self._recent = None

    def next_due(self, otherwise: dt.datetime) -> dt.datetime:
        """When the next tick is due, or another moment if that is sooner."""
        return min(self._releaser.next_due() or otherwise, otherwise)

    def budget(self, period: str) -> BudgetBlock:
        """The budget of a month's live counter, also where it was turned off since.

        Raises:
            NotFoundError: It is off, and no plan of this month was opened.
        """
        stored = self._releaser.find(period)
        if stored is not None:
            return self._statements.block(LivePlan.from_json(stored.body).budget)
        held = promises.budget(promises.LIVE, period, self._releaser.terms)
        return self._statements.block(held)

    def _known(self) -> tuple[Release, ...]:
        """The ticks of today and yesterday that were released."""
        today = self._releaser.calendar.today()
        if self._recent is None:
            days = (today - _ONE_DAY, today)
            return tuple(one for day in days for one in self._releaser.released(day))
        return tuple(one for one in self._recent if one.window.end >= today - _ONE_DAY)
