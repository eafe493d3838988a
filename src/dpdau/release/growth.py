"""A growth release: one charge, four counts of disjoint sets, four numbers that fit together.

The order inside the ledger's transaction is that of a release on demand: look for the stored
answer, check the budget, charge, count, add noise, record.
"""

import secrets
from dataclasses import dataclass

from dpdau import __version__, aggregates
from dpdau import plan as plans
from dpdau.accounting.events import DiscreteGaussianEvent
from dpdau.domain import (
    GROWTH,
    GROWTH_CURRENT,
    GROWTH_PREVIOUS,
    Figure,
    GrowthTotal,
    Release,
    Window,
    growth_total,
)
from dpdau.ledger.steps import OpenRequest
from dpdau.mechanisms.base import interval
from dpdau.mechanisms.gaussian import sum_half_width
from dpdau.release.on_demand import Releaser


@dataclass(frozen=True, slots=True)
class GrowthReleaser:
    """Takes growth plans with what releases on demand are taken with."""

    releaser: Releaser

    def release(
        self, window: Window, *, timezone: str, fresh: bool = False
    ) -> tuple[tuple[Release, ...], bool]:
        """The four cells of a window: the stored ones, or new ones if there are none or `fresh`.

        Returns:
            The releases in the order of `GROWTH`, and whether they were stored before (then nothing
            was charged).

        Raises:
            ReleaseNotReadyError: The day has not closed.
            InvalidPlanError: The window before this one reaches into what is purged, or a pseudonym
                key was destroyed between its first day and the last one; nothing was charged.
            BudgetExhaustedError: The charge does not fit; nothing was charged, no count was read.
            StoreUnavailableError: Another process writes the store; nothing was charged.

        Guarantee: the four new releases and their charge are stored in one transaction. Asking
        again gives the same bytes at no cost, however many ask at once.
        """
        ledger, calendar = self.releaser.ledger, self.releaser.calendar
        # Read first: who releases meanwhile is found, or took the same number of the edition.
        edition = ledger.editions(GROWTH[0], window)
        known = ledger.series(GROWTH, window.end, window.end)
        stored = tuple(one for one in known if one.window == window)
        if stored and not fresh:
            return stored, True
        calendar.require_closed(window.end)
        calendar.require_kept(window.before)
        plan = plans.growth(window, edition=edition, timezone=timezone, terms=self.releaser.terms)
        return ledger.take_growth(
            OpenRequest(
                plan_id=plan.plan_id,
                plan_body=plan.to_json(),
                budget=plan.budget,
                charge=plan.charge,
            ),
            lambda: self._make(plan),
        )

    def totals(self, cells: tuple[Release, ...]) -> tuple[GrowthTotal, GrowthTotal]:
        """The users of the window and of the one before it, as sums of published cells.

        Guarantee: a function of published numbers and of the public plan alone.
        """
        plan = self.releaser.ledger.find_plan(cells[0].plan_id)
        assert plan is not None, "a release has its plan"
        assert isinstance(plan.event, DiscreteGaussianEvent), "a growth plan is charged for it"
        sigma, window = float(plan.event.sigma), cells[0].window

        def total(window: Window, figures: tuple[Figure, ...]) -> GrowthTotal:
            return GrowthTotal(
                window=window,
                estimate=growth_total(cells, figures),
                half_width_95=sum_half_width(sigma, len(figures)),
                noise_stddev=cells[0].noise_stddev * len(figures) ** 0.5,
            )

        return total(window, GROWTH_CURRENT), total(window.before, GROWTH_PREVIOUS)

    def _make(self, plan: plans.GrowthPlan) -> list[Release]:
        """Closes the day, counts the cells, adds noise to each, in the charge's transaction."""
        tools, mechanism = self.releaser, plan.mechanism
        tools.store.close_day(plan.window.end)
        counts = aggregates.growth_cells(tools.store, plan.window)
        tools.calendar.require_one_name(plan.window.before.start, plan.window.end)
        released_at = tools.calendar.clock()
        made = []
        for step, figure in enumerate(GROWTH):
            value, _ = mechanism.step(counts[figure], mechanism.init(horizon=1), tools.noise)
            lower, upper = interval(mechanism, value)
            made.append(
                Release(
                    release_id=f"rel-{secrets.token_hex(12)}",
                    plan_id=plan.plan_id,
                    step=step,
                    metric=figure,
                    window=plan.window,
                    segment=None,
                    timezone=plan.timezone,
                    estimate=value,
                    lower_95=lower,
                    upper_95=upper,
                    noise_stddev=mechanism.noise_stddev,
                    mechanism=mechanism.name,
                    sketch_impl=tools.sketch_impl,
                    epsilon=float(mechanism.epsilon),
                    delta=float(mechanism.delta),
                    status="final",
                    version=__version__,
                    released_at=released_at,
                )
            )
        return made
