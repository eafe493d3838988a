"""What the pages of a product show, from the ledger, the settings and the clock alone.

Nothing here reads activity, and nothing here charges.
"""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

from dpdau import plan as promises
from dpdau.accounting.budget import (
    Cost,
    FilterName,
    charges_left,
    cost_of,
    epsilon_remaining,
    epsilon_spent,
    fits,
)
from dpdau.accounting.events import from_json
from dpdau.app.implied import Implied, implied
from dpdau.app.months import quoted
from dpdau.app.product import App
from dpdau.app.reading import DELTA_MAX, EPSILON_MAX
from dpdau.domain import (
    Figure,
    Metric,
    MonthQuote,
    MonthStatus,
    Release,
    Segment,
    SeriesView,
    month_days,
    month_of,
)
from dpdau.errors import DpdauError, InvalidPlanError, NotFoundError
from dpdau.ledger.budgets import BudgetState
from dpdau.ledger.log import BUDGET_GRANTED
from dpdau.ledger.statement import Statements
from dpdau.mechanisms.matrix.strategies import SHIPPED_MAU_WINDOWS
from dpdau.release.months import promised

DELTA_MIN: Final = Decimal("1e-15")
CHARGES_READ_MAX: Final = 20_000
POINTS_MAX: Final = 400
"""A course with more charges is drawn from so many of them."""
_PAGE: Final = 1000
_ONE_DAY: Final = dt.timedelta(days=1)
_ERASURES_DAYS: Final = 62
_SHARE_STEPS: Final = ((0.0, "none"), (0.01, "under 1 %"), (0.1, "1 to 10 %"), (0.5, "10 to 50 %"))
_FEW_EVENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Course:
    """What became of one budget of a month, charge by charge.

    Attributes:
        metric: Whose budget: a metric, `plan` or `live`.
        month: The calendar month.
        epsilon_cap: What all of it guarantees, with `delta`.
        epsilon_spent: ε charged so far; rounded up.
        epsilon_remaining: ε that is left; rounded down.
        release_count: Numbers that were released from it.
        more: How many more charges of the usual price fit.
        grants: When each allowance beyond the first was granted, oldest first.
        points: (moment, share that is left from then on of the cap that holds then) at each charge
            and each grant, oldest first.
        ends_at: When it is used up if it is spent on as fast as so far; None if that cannot be said
            or is after the month.
        forecast: The same in words.
    """

    metric: str
    month: str
    filter: str
    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_remaining: float
    release_count: int
    more: int
    grants: tuple[dt.datetime, ...]
    points: tuple[tuple[dt.datetime, float], ...]
    ends_at: dt.datetime | None
    forecast: str

    def to_json(self) -> dict[str, Any]:
        """All fields, moments as text."""
        return {
            "metric": self.metric,
            "month": self.month,
            "filter": self.filter,
            "epsilon_cap": self.epsilon_cap,
            "delta": self.delta,
            "epsilon_spent": self.epsilon_spent,
            "epsilon_remaining": self.epsilon_remaining,
            "release_count": self.release_count,
            "more": self.more,
            "ends_at": None if self.ends_at is None else self.ends_at.isoformat(),
            "forecast": self.forecast,
            "grants": [at.isoformat() for at in self.grants],
            "points": [[at.isoformat(), left] for at, left in self.points],
        }


class Showing:
    """What readers of one product see.

    Args:
        app: The product.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._terms = app.months.releaser.terms
        self._statements = Statements(app.ledger, app.months.statements.terms, reported=False)

    def span(self) -> tuple[dt.date, dt.date] | None:
        """The first and the last target day of any DAU, WAU or MAU."""
        return self._app.ledger.span()

    def series(
        self,
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        view: SeriesView = SeriesView.RAW,
    ) -> list[Release]:
        """Each metric's own window, released in a range, in day order."""
        windows = promises.own_windows(self._terms.mau_window_days)
        found = self._app.months.series(list(Metric), first, last, segment, view)
        return [
            one
            for one in found
            if isinstance(one.metric, Metric) and windows[one.metric] == one.window.days
        ]

    def log(
        self,
        *,
        metric: Metric | Figure | None = None,
        first: dt.date | None = None,
        last: dt.date | None = None,
        segment: Segment | None = None,
        after: str | None = None,
        limit: int,
    ) -> tuple[list[Release], str | None]:
        """One page of what was released, newest first, and the cursor of the next."""
        return self._app.ledger.releases(
            metrics=None if metric is None else [metric],
            first=first,
            last=last,
            segment="every" if segment is None else segment,
            after=after,
            limit=limit,
            newest_first=True,
        )

    def month(self, month: str) -> MonthStatus | None:
        """The open plan of a month, and how far it has come; None where it is not open."""
        months = replace(self._app.months, statements=self._statements)
        try:
            return months.status(month)
        except NotFoundError:
            return None

    def waiting(self) -> tuple[dt.date, dt.datetime] | None:
        """The first day of an open plan that is not released, and when it closes; None where every
        open plan is at its end."""
        found = [one for one in map(self.month, self._app.ledger.unfinished_months()) if one]
        days = [one.next_day for one in found if one.next_day is not None]
        return (min(days), self._app.calendar.closes_at(min(days))) if days else None

    def price(
        self,
        month: str,
        *,
        epsilon: str | None = None,
        delta: str | None = None,
        mau_window_days: int | None = None,
    ) -> MonthQuote:
        """What the plan of a month would cost and how precise it would be at other terms.

        Where it is open it is what it is. Charges nothing.

        Raises:
            InvalidPlanError: ε, δ or the window is out of range, or the month is none.
            ReleaseNotReadyError: The strategy for such a window is not solved yet.
        """
        made, windows = self._app.months.releaser, self.mau_windows()
        if mau_window_days is not None and mau_window_days not in windows:
            raise InvalidPlanError(f"Expected a window of {windows} days, found another.")
        stored = made.find(month)
        if stored is not None:
            plan = made.promise(month)
        else:
            terms = replace(
                self._terms,
                plan_epsilon=_within("epsilon", epsilon, Decimal(EPSILON_MAX))
                or self._terms.plan_epsilon,
                plan_delta=_within("delta", delta, DELTA_MAX) or self._terms.plan_delta,
                mau_window_days=mau_window_days or self._terms.mau_window_days,
            )
            plan = promised(
                month,
                calendar=self._app.calendar,
                terms=terms,
                strategies=made.strategies,
                segments=made.segments,
            )
        return quoted(
            plan, opened=stored is not None, ledger=self._app.ledger, statements=self._statements
        )

    def mau_windows(self) -> list[int]:
        """The MAU windows that can be priced at once: those of the shipped strategies, and the
        one of the settings."""
        return sorted({*SHIPPED_MAU_WINDOWS, self._terms.mau_window_days})

    def courses(self, month: str) -> list[Course]:
        """Each budget of a month: the plan, the metrics on demand, and the live counter if on."""
        return [self._course(state) for state in self._states(month)]

    def newest_month(self) -> str:
        """The newest month with an open budget; this month where there is none."""
        today, span = self._app.calendar.today(), self.span()
        least = month_of(min(span[0], today) if span else today)
        month = month_of(today + dt.timedelta(days=max(self.mau_windows())))
        while month > least and not self._app.ledger.states(month):
            month = month_of(month_days(month)[0] - _ONE_DAY)
        return month if self._app.ledger.states(month) else month_of(today)

    def implied(self, month: str) -> list[Implied]:
        """What each budget of a month guarantees, and what follows from that.

        An open one is as it was opened, with what was granted; another is that of the settings.
        """
        return implied(self._states(month))

    def cannot_open(self, month: str) -> str | None:
        """Why the plan of a month cannot be opened now; None where it can. Charges nothing."""
        from dpdau.app.gateway import require_activity

        releaser = self._app.months.releaser
        try:
            plan = releaser.promise(month)
            releaser.require_in_reach(plan)
            require_activity(releaser.store)
        except DpdauError as error:
            return error.message
        state = self._app.ledger.budget_state(plan.budget)
        if not fits(state.budget, state.spent, plan.charge.dp_event):
            return "Its charge does not fit what is left of the budget."
        return None

    def cannot_erase(self) -> str | None:
        """Why nobody can be erased through this service; None where users can."""
        from dpdau.app.gateway import require_activity

        try:
            require_activity(self._app.months.releaser.store)
        except DpdauError as error:
            return error.message
        return None

    def charge(self, month: str) -> tuple[Fraction, Fraction]:
        """ε and δ that opening the plan of a month costs, exactly.

        Raises:
            InvalidPlanError: The text is no month.
            ReleaseNotReadyError: Its strategy is not there yet.
        """
        plan = self._app.months.releaser.promise(month)
        return plan.epsilon, plan.delta

    def erasures(self) -> list[dict[str, str]]:
        """The erasures of the last two months, newest first: id and moment."""
        since = self._app.calendar.clock() - dt.timedelta(days=_ERASURES_DAYS)
        found = [one for one in self._app.ledger.audit_log(since) if one.action == "erase"]
        return [
            {"erasure_id": str(one.facts["erasure_id"]), "at": one.at.isoformat()}
            for one in reversed(found)
        ]

    def intake(self) -> dict[str, str]:
        """What became of the events that this process took, in a few steps.

        For operators: not even a step is without a trace of single events.
        """
        counts = self._app.intake.outcomes()
        received = sum(counts.values())
        if received == 0:
            return {"received": "none so far", **dict.fromkeys(counts, "none")}
        size = 10 ** int(math.log10(received))
        known = "under 1,000" if received < _FEW_EVENTS else f"{size:,} or more"
        return {"received": known} | {
            name: _share(count / received) for name, count in counts.items()
        }

    def _states(self, month: str) -> list[BudgetState]:
        """Each budget of a month as it is open, or as it would open under the settings."""
        opened = {one.budget.metric: one for one in self._app.ledger.states(month)}
        names = [promises.PLAN, *(metric.value for metric in Metric)]
        if self._terms.live_epsilon is not None or promises.LIVE in opened:
            names.append(promises.LIVE)
        return [
            opened.get(name)
            or self._app.ledger.budget_state(promises.budget(name, month, self._terms))
            for name in names
        ]

    def _course(self, state: BudgetState) -> Course:
        budget = state.budget
        charges = self._charges(budget.budget_id)
        grants = self._grants(state)
        points = self._points(state, charges, grants)
        began = charges[0][0] if charges else None
        ends_at, forecast = self._forecast(state, points, began)
        epsilon, delta = budget.guarantee()
        return Course(
            metric=budget.metric,
            month=budget.period,
            filter=budget.filter_name.value,
            epsilon_cap=epsilon,
            delta=delta,
            epsilon_spent=epsilon_spent(budget, state.spent),
            epsilon_remaining=epsilon_remaining(budget, state.spent),
            release_count=state.release_count,
            more=self._more(state),
            grants=grants,
            points=_thinned(points, grants),
            ends_at=ends_at,
            forecast=forecast,
        )

    def _points(
        self,
        state: BudgetState,
        charges: Sequence[tuple[dt.datetime, Cost]],
        grants: Sequence[dt.datetime],
    ) -> list[tuple[dt.datetime, float]]:
        """The share that is left of the cap that held then, from each charge and grant on."""
        cap = self._units(state, state.cap)
        one = cap / state.allowances
        steps = [(at, one, Fraction(0)) for at in grants]
        steps += [(at, Fraction(0), self._units(state, cost)) for at, cost in charges]
        points, held, spent = [], one, Fraction(0)
        for at, more, cost in sorted(steps):
            held, spent = held + more, spent + cost
            points.append((at, _part(held - spent, held)))
        left = _part(self._units(state, state.remaining), cap)
        if points and points[-1][1] != left:
            # Not every charge was read; how much they are in all is known.
            points.append((max(self._app.calendar.clock(), points[-1][0]), left))
        return points

    def _grants(self, state: BudgetState) -> tuple[dt.datetime, ...]:
        """When each allowance beyond the first was granted."""
        found: list[dt.datetime] = []
        after = 0
        while len(found) < state.allowances - 1:
            page = self._app.ledger.audit_log(after=after)
            if not page:
                break
            after = page[-1].seq
            found += [
                one.at
                for one in page
                if one.action == BUDGET_GRANTED and one.facts["budget_id"] == state.budget.budget_id
            ]
        return tuple(found)

    def _units(self, state: BudgetState, cost: Cost) -> Fraction:
        """A cost in the unit that the budget adds up."""
        return cost.epsilon if state.budget.filter_name is FilterName.BASIC else cost.rho

    def _charges(self, budget_id: str) -> list[tuple[dt.datetime, Cost]]:
        """What was charged to a budget, and when, oldest first."""
        found: list[tuple[dt.datetime, Cost]] = []
        after: str | None = None
        while len(found) < CHARGES_READ_MAX:
            rows, after = self._app.ledger.plans(after=after, limit=_PAGE, budget_id=budget_id)
            found += [
                (
                    dt.datetime.fromisoformat(row["opened_at"]),
                    cost_of(from_json(row["charge"]["dp_event"])),
                )
                for row in rows
            ]
            if after is None:
                break
        return found

    def _more(self, state: BudgetState) -> int:
        """How many more charges of the usual price fit; a month has one plan."""
        name = state.budget.metric
        if name in (promises.PLAN, promises.LIVE):
            return 0 if state.events else 1
        asked = promises.question(
            Metric(name),
            month_days(state.budget.period)[0],
            window_days=None,
            segment=None,
            timezone=self._app.settings.TIMEZONE,
            terms=self._terms,
        )
        plan = promises.on_demand(asked, edition=0, terms=self._terms)
        return charges_left(state.budget, state.spent, plan.charge.dp_event)

    def _forecast(
        self,
        state: BudgetState,
        points: Sequence[tuple[dt.datetime, float]],
        began: dt.datetime | None,
    ) -> tuple[dt.datetime | None, str]:
        """When a budget is used up at the pace since its first charge, and the same in words."""
        if state.budget.metric in (promises.PLAN, promises.LIVE):
            paid = "Paid: one charge covers the whole month."
            return None, paid if began else "Not open: nothing is charged yet."
        if began is None:
            return None, "Nothing is charged yet."
        now, calendar = self._app.calendar.clock(), self._app.calendar
        over = calendar.closes_at(month_days(state.budget.period)[1])
        left = points[-1][1]
        if self._more(state) == 0:
            return points[-1][0], "Used up: no further charge fits."
        if now >= over:
            return None, "The month is over."
        elapsed = max(now - began, _ONE_DAY)
        ends = now + elapsed * (left / (1 - left)) if left < 1 else over
        if ends >= over:
            return None, "At this pace it lasts past the month."
        day = ends.astimezone(calendar.zone).date()
        return ends, f"At this pace it is used up on {day.isoformat()}."


def _part(left: Fraction, cap: Fraction) -> float:
    """A share, between nothing and all."""
    return max(0.0, round(float(left / cap), 9))


def _thinned(
    points: Sequence[tuple[dt.datetime, float]], grants: Sequence[dt.datetime]
) -> tuple[tuple[dt.datetime, float], ...]:
    """At most about `POINTS_MAX` of them, the last and all grants among them."""
    stride, last = max(1, len(points) // POINTS_MAX), len(points) - 1
    return tuple(
        one
        for place, one in enumerate(points)
        if place % stride == 0 or place == last or one[0] in grants
    )


def _within(name: str, text: str | None, most: Decimal) -> Fraction | None:
    """A parameter of privacy, exactly as it was written; None where it was not."""
    if text is None:
        return None
    least = DELTA_MIN if name == "delta" else Decimal("0.01")
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not (found.is_finite() and least <= found <= most):
        symbol = "δ" if name == "delta" else "ε"
        raise InvalidPlanError(f"Expected {symbol} from {least:g} to {most:g}, found another.")
    return Fraction(found)


def _share(share: float) -> str:
    """A share in steps, so that it says little."""
    return next((word for most, word in _SHARE_STEPS if share <= most), "over 50 %")
