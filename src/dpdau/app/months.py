"""Month plans as the verbs see them: what one would cost, open it, and answer from it."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpdau.accounting.budget import fits
from dpdau.domain import (
    RELATIVE_ERROR,
    Metric,
    MonthLine,
    MonthQuote,
    MonthStatus,
    Quote,
    Release,
    Segment,
    SeriesView,
    month_days,
    month_of,
)
from dpdau.errors import BudgetExhaustedError, DpdauError, NotFoundError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.statement import Statements
from dpdau.plan import MonthPlan, Question, month_plan_id, own_windows
from dpdau.release import MonthReleaser, views


@dataclass(frozen=True, slots=True)
class Months:
    """The verbs on month plans."""

    releaser: MonthReleaser
    ledger: Ledger
    statements: Statements

    def price(self, month: str) -> MonthQuote:
        """See `Verbs.price_month`."""
        return quoted(
            self.releaser.promise(month),
            opened=self.releaser.find(month) is not None,
            ledger=self.ledger,
            statements=self.statements,
        )

    def open(self, month: str) -> MonthStatus:
        """See `Verbs.open_month`."""
        self._charge(month)
        return self.status(month)

    def catch_up(self, month: str) -> int:
        """Takes the closed days of an open plan now; gives how many numbers were released."""
        return len(self.releaser.take(month, self.releaser.calendar.last_closed_day()))

    def status(self, month: str) -> MonthStatus:
        """See `Verbs.month`."""
        stored = self.releaser.find(month)
        if stored is None:
            raise NotFoundError(f"Expected an open plan for {month}, found none.")
        plan = MonthPlan.from_json(stored.body)
        following = self.releaser.next_day(stored)
        return MonthStatus(
            plan_id=plan.plan_id,
            month=month,
            timezone=plan.timezone,
            days=plan.days,
            days_taken=plan.days_taken(stored.steps_taken),
            segments=plan.segments,
            mechanism=plan.mechanism,
            epsilon=float(plan.epsilon),
            delta=float(plan.delta),
            opened_at=stored.opened_at,
            abandoned=stored.abandoned,
            next_day=following,
            next_closes_at=(
                None if following is None else self.releaser.calendar.closes_at(following)
            ),
            budget=self.statements.block(plan.budget),
        )

    def abandon(self, month: str, reason: str) -> MonthStatus:
        """Gives up the rest of a plan: what it released stays, and nothing is refunded."""
        from dpdau.app.gateway import require_activity

        # What is kept of it may be elsewhere, and would stay there.
        require_activity(self.releaser.store)
        self.releaser.abandon(month, reason=reason)
        return self.status(month)

    def covers(self, asked: Question) -> bool:
        """Whether the plan of the month, open or not, publishes what is asked for."""
        stored = self.releaser.find(month_of(asked.window.end))
        if stored is not None:
            plan = MonthPlan.from_json(stored.body)
            windows, series = dict(plan.windows), plan.series
            taken = plan.days_taken(stored.steps_taken)
            if stored.abandoned and (asked.window.end - plan.first).days >= taken:
                return False
        else:
            windows = own_windows(self.releaser.terms.mau_window_days)
            series = (None, *self.releaser.segments)
        return windows[asked.metric] == asked.window.days and asked.segment in series

    def quote(self, asked: Question) -> Quote:
        """What the number costs where the plan publishes it: the plan's charge, once."""
        plan = self.releaser.promise(month_of(asked.window.end))
        day, place = (asked.window.end - plan.first).days, plan.series.index(asked.segment)
        priced = self.price(plan.month)
        return Quote(
            metric=asked.metric,
            window=asked.window,
            segment=asked.segment,
            mechanism=plan.mechanism,
            epsilon=priced.epsilon,
            delta=priced.delta,
            noise_stddev=plan.stddev(day, place, asked.metric),
            half_width_95=plan.half_width(day, place, asked.metric),
            affordable=priced.affordable,
            budget=priced.budget,
        )

    def answer(self, asked: Question) -> tuple[Release, bool]:
        """The number of a plan: the stored one, or the one that taking the days up to it makes.

        Opens the plan if it is not open: one charge for all its numbers.

        Returns:
            The release, and whether it was stored before.
        """
        from dpdau.telemetry import span

        metric, window, segment = asked.metric, asked.window, asked.segment
        known = self.ledger.find_release(metric, window, segment)
        if known is not None:
            return known, True
        self.releaser.calendar.require_closed(window.end)
        month = month_of(window.end)
        self._charge(month)
        with span("release", metric=metric.value):
            self.releaser.take(month, window.end)
        made = self.ledger.find_release(metric, window, segment)
        assert made is not None, "a day that was taken has its numbers"
        return made, False

    def series(
        self,
        metrics: Sequence[Metric],
        first: dt.date,
        last: dt.date,
        segment: Segment | None,
        view: SeriesView,
    ) -> list[Release]:
        """The releases of a range; a view of them is made from all metrics of whole months."""
        if view is SeriesView.RAW:
            return self.ledger.series(metrics, first, last, segment)
        start, end = month_days(month_of(first))[0], month_days(month_of(last))[1]
        planned = self._planned(start, end, segment)
        return [
            one
            for one in views.shown(planned, view, strategy_of=self.releaser.strategy_of)
            if one.metric in metrics and first <= one.window.end <= last
        ]

    def _planned(self, first: dt.date, last: dt.date, segment: Segment | None) -> list[Release]:
        """What month plans released in a range, by day and then from the day to the month.

        A release on demand of the same question is newer, and is no part of a plan.
        """
        found: list[Release] = []
        after, more = None, True
        while more:
            page, after = self.ledger.releases(
                metrics=list(Metric), first=first, last=last, segment=segment, after=after
            )
            found += [one for one in page if one.plan_id == month_plan_id(month_of(one.window.end))]
            more = after is not None
        return sorted(found, key=lambda one: (one.window.end, one.window.days))

    def take_due(self, *, opening: bool) -> int:
        """Takes every day that has closed, of every open plan.

        Args:
            opening: Whether to open the plan of the newest closed day first.

        Returns:
            How many numbers were released.

        Raises:
            DpdauError: One plan could not go on; the others did.
        """
        from dpdau.telemetry import span

        newest = self.releaser.calendar.last_closed_day()
        released, failed = 0, None
        if opening:
            try:
                self._charge(month_of(newest))
            except DpdauError as error:
                failed = error
        for month in self.ledger.unfinished_months():
            try:
                with span("release due", month=month):
                    released += len(self.releaser.take(month, newest))
            except DpdauError as error:
                failed = error
        self.releaser.end_what_is_over()
        if failed is not None:
            raise failed
        return released

    def _charge(self, month: str) -> None:
        """Opens the plan unless it is open.

        Raises:
            BudgetExhaustedError: What it would cost, and what is left.
        """
        try:
            self.releaser.open(month)
        except BudgetExhaustedError:
            raise self._exhausted(month) from None

    def _exhausted(self, month: str) -> BudgetExhaustedError:
        """The refusal in words."""
        plan = self.releaser.promise(month)
        block = self.statements.block(plan.budget)
        return BudgetExhaustedError(
            f"Expected room for ε {float(plan.epsilon):g} in the plan budget of {month}, found "
            f"{block.epsilon_remaining:.4g} of ε {block.epsilon_cap:g} left.",
            budget=block.to_json(),
        )


def quoted(plan: MonthPlan, *, opened: bool, ledger: Ledger, statements: Statements) -> MonthQuote:
    """What a plan costs, how precise it is, and whether its charge fits or is made."""
    state = ledger.budget_state(plan.budget)
    return MonthQuote(
        month=plan.month,
        mechanism=plan.mechanism,
        strategy=plan.strategy,
        epsilon=float(plan.epsilon),
        delta=float(plan.delta),
        affordable=opened or fits(state.budget, state.spent, plan.charge.dp_event),
        opened=opened,
        lines=_lines(plan),
        budget=statements.block(plan.budget),
    )


def _lines(plan: MonthPlan) -> tuple[MonthLine, ...]:
    """The precision of every series and metric, from the day to the month."""
    lines = []
    for place, segment in enumerate(plan.series):
        for metric in sorted(plan.metrics, key=lambda one: plan.windows[one]):
            widths = tuple(plan.half_width(day, place, metric) for day in range(plan.days))
            spread = [plan.stddev(day, place, metric) ** 2 for day in range(plan.days)]
            lines.append(
                MonthLine(
                    metric=metric,
                    window_days=plan.windows[metric],
                    segment=segment,
                    noise_stddev=math.sqrt(sum(spread) / plan.days),
                    half_widths_95=widths,
                    smallest_population=math.ceil(max(widths) / RELATIVE_ERROR),
                )
            )
    return tuple(lines)
