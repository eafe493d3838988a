"""Growth as the verbs see it: four numbers that fit together, with their totals."""

import datetime as dt
from dataclasses import dataclass

from dpdau import plan as promises
from dpdau.app.singles import Singles
from dpdau.domain import GrowthAnswer, Metric, Window, month_of
from dpdau.errors import BudgetExhaustedError
from dpdau.release import GrowthReleaser
from dpdau.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Growth:
    """The verb on growth plans, with what the verbs on single releases have."""

    singles: Singles
    timezone: str
    metrics: Metrics | None

    def answer(self, day: dt.date, window_days: int | None, *, fresh: bool) -> GrowthAnswer:
        """The stored cells, or new ones with their charge, and their totals.

        Raises:
            BudgetExhaustedError: What it would cost, what is left, and what can be done.
        """
        releaser = GrowthReleaser(self.singles.releaser)
        terms = self.singles.releaser.terms
        window = Window(day, terms.mau_window_days if window_days is None else window_days)
        try:
            cells, replayed = releaser.release(window, timezone=self.timezone, fresh=fresh)
        except BudgetExhaustedError:
            plan = promises.growth(window, edition=0, timezone=self.timezone, terms=terms)
            raise self.singles.exhausted(plan) from None
        held = promises.budget(Metric.MAU, month_of(day), terms)
        block = self.singles.statements.block(held)
        if self.metrics is not None:
            for cell in cells:
                self.metrics.released(cell.metric, replayed=replayed)
        current, previous = releaser.totals(cells)
        return GrowthAnswer(
            cells=cells, current=current, previous=previous, replayed=replayed, budget=block
        )
