"""The content of the pages on what is promised, charged and left: budget, plans and guarantee."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Final

from dpdau.api.asked import Asked, Sheet
from dpdau.app.implied import Implied
from dpdau.app.showing import Course
from dpdau.domain import Metric, MonthStatus, Scope, month_days, month_of
from dpdau.errors import ReleaseNotReadyError

_ONE_DAY: Final = dt.timedelta(days=1)
_DELTAS: Final = tuple(Fraction(1, 10**power) for power in range(3, 13))
_EPSILONS: Final = (Fraction(1, 10), Fraction(10))
"""What the sliders reach; further where the terms of a deployment or of a question are beyond."""
_DIGITS: Final = 60
_TINY: Final = -4
BUDGET_NAMES: Final = {
    "plan": "Month plan",
    "dau": "DAU on demand",
    "wau": "WAU on demand",
    "mau": "MAU on demand",
    "live": "Live counter",
    "all": "All of them, spent to the end",
}


def budget(asked: Asked) -> Sheet:
    """How each budget of a month was spent, and when it will be used up."""
    month = asked.query.month or _newest_month(asked)
    courses = asked.showing.courses(month)
    rows = [_budget_row(one) for one in courses]
    first, last = month_days(month)
    calendar = asked.app.calendar
    over, now = calendar.closes_at(last), calendar.clock()
    facts = {
        "month": month,
        "month_before": month_of(first - _ONE_DAY),
        "month_after": month_of(last + _ONE_DAY),
        "now": now.isoformat(),
        "over_at": over.isoformat(),
        "burn_down": _burn_down(courses, calendar.begins_at(first), now=now, over=over),
        "policy": asked.app.settings.RELEASE_POLICY,
        "budgets": [one.to_json() for one in courses],
        "plan": _status(asked.showing.month(month)),
    }
    return Sheet(facts, tuple(rows[0]), rows)


def plans(asked: Asked) -> Sheet:
    """What the plan of a month would cost and how precise it would be."""
    query, settings, showing = asked.query, asked.app.settings, asked.showing
    month = query.month or _next_month(asked)
    refusal, quote = None, None
    price = Fraction(settings.PLAN_EPSILON), Fraction(settings.PLAN_DELTA)
    try:
        quote = showing.price(
            month, epsilon=query.epsilon, delta=query.delta, mau_window_days=query.window
        )
        price = showing.charge(month)
    except ReleaseNotReadyError as error:
        refusal = error.message
    terms = price if quote and quote.opened else _asked_terms(query, price)
    window = _mau_window(quote.lines) if quote else query.window or settings.MAU_WINDOW_DAYS
    configured = {**_terms(price), "window": settings.MAU_WINDOW_DAYS}
    lines = [] if quote is None else [one.to_json() for one in quote.lines]
    days = [] if quote is None else _days_of(month)
    plan, may = _status(showing.month(month)), asked.caller.may(Scope.RELEASE)
    reason = showing.cannot_open(month) if may else "Your key lacks the scope `release`."
    shown = {**_terms(terms), "window": window}
    facts = {
        "month": month,
        "terms": shown,
        "configured": configured,
        "exact": {"terms": _exact_terms(terms), "configured": _exact_terms(price)},
        "sliders": _sliders(price, terms),
        "is_configured": terms == price and window == settings.MAU_WINDOW_DAYS,
        "windows": showing.mau_windows(),
        "quote": None if quote is None else {**quote.to_json(), "lines": lines},
        "days": days,
        "refusal": refusal,
        "plan": plan,
        "may_open": may,
        "can_open": plan is None and reason is None,
        "cannot_open": None if plan else reason,
        "policy": settings.RELEASE_POLICY,
    }
    shared = {"month": month, "epsilon": shown["epsilon"], "delta": shown["delta"]}
    columns = (*shared, "metric", "window_days", "segment", "day", "half_width_95")
    rows = [
        {**shared, **line, "day": day, "half_width_95": width}
        for line in lines
        for day, width in zip(days, line["half_widths_95"], strict=True)
    ]
    return Sheet(facts, columns, rows)


def guarantee(asked: Asked) -> Sheet:
    """What is promised to each user, in figures: for one month, and for those to come."""
    newest, settings = asked.showing.newest_month(), asked.app.settings
    month = asked.query.month or newest
    first, last = month_days(month)
    later = month_of(month_days(max(month, newest))[1] + _ONE_DAY)
    found = [_implied_row(one) for one in asked.showing.implied(month)]
    facts = {
        "figures": found,
        "month": month,
        "month_before": month_of(first - _ONE_DAY),
        "month_after": month_of(last + _ONE_DAY),
        "is_open": any(one["is_open"] for one in found),
        "later": _implied_row(asked.showing.implied(later)[-1]),
        "policy": settings.RELEASE_POLICY,
        "timezone": settings.TIMEZONE,
        "window": settings.MAU_WINDOW_DAYS,
        "grace_hours": settings.GRACE_HOURS,
        "live": settings.LIVE_EPSILON is not None,
    }
    return Sheet(facts, tuple(found[0]), found)


def exact(number: Fraction) -> str:
    """A parameter of privacy as people write it, with every digit that it has.

    Example:
        >>> exact(Fraction(3)), exact(Fraction("1e-6")), exact(Fraction("2.7182818284"))
        ('3', '1e-6', '2.7182818284')
    """
    with localcontext(prec=_DIGITS):
        found = (Decimal(number.numerator) / Decimal(number.denominator)).normalize()
        power = found.adjusted()
        return f"{found.scaleb(-power):f}e{power}" if power < _TINY else f"{found:f}"


def _asked_terms(query: Any, price: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
    """The ε and δ of a question, as they were written; those of the deployment where none are."""
    texts = (query.epsilon, query.delta)
    found = [
        own if text is None else Fraction(Decimal(text))
        for text, own in zip(texts, price, strict=True)
    ]
    return found[0], found[1]


def _terms(terms: tuple[Fraction, Fraction]) -> dict[str, Any]:
    return {"epsilon": float(terms[0]), "delta": float(terms[1])}


def _exact_terms(terms: tuple[Fraction, Fraction]) -> dict[str, str]:
    return {"epsilon": exact(terms[0]), "delta": exact(terms[1])}


def _sliders(*terms: tuple[Fraction, Fraction]) -> dict[str, Any]:
    """What the sliders reach: every value that is shown is one of theirs."""
    epsilons = sorted({*_EPSILONS, *(one[0] for one in terms)})
    deltas = sorted({*_DELTAS, *(one[1] for one in terms)}, reverse=True)
    return {
        "epsilon_least": exact(epsilons[0]),
        "epsilon_most": exact(epsilons[-1]),
        "deltas": [exact(one) for one in deltas],
    }


def _burn_down(
    courses: Sequence[Course], begin: dt.datetime, *, now: dt.datetime, over: dt.datetime
) -> list[dict[str, Any]]:
    """The share that is left of each budget, in percent of the cap that held then, whenever one
    was charged or granted more; and the days on which they will be used up at the pace so far."""
    moments = {at for one in courses for at, _ in one.points}
    if moments and min(moments) > over:
        begin = min(moments) - _ONE_DAY
    begin = min({begin, *moments})
    end = max({min(max(now, begin), over), *moments})
    rows = []
    for at in sorted({begin, *moments, end}):
        left: dict[str, Any] = {"at": at.isoformat()}
        left["granted"] = [one.metric for one in courses if at in one.grants]
        for one in courses:
            known = [share for moment, share in one.points if moment <= at]
            left[one.metric] = round(100 * (known[-1] if known else 1), 2)
        rows.append(left)
    ahead = [one for one in courses if one.ends_at is not None and one.ends_at > end]
    for one in ahead:
        rows[-1][f"{one.metric}_forecast"] = rows[-1][one.metric]
    for one in sorted(ahead, key=lambda one: str(one.ends_at)):
        assert one.ends_at is not None, "only those with an end are ahead"
        rows.append({"at": one.ends_at.isoformat(), "granted": [], f"{one.metric}_forecast": 0})
    return rows


def _newest_month(asked: Asked) -> str:
    """The month of the newest release, or this one."""
    span = asked.showing.span()
    return month_of(span[1] if span else asked.app.calendar.today())


def _next_month(asked: Asked) -> str:
    """The month whose plan may be bought next."""
    month = _newest_month(asked)
    if asked.showing.month(month) is None:
        return month
    return month_of(month_days(month)[1] + _ONE_DAY)


def _days_of(month: str) -> list[str]:
    first, last = month_days(month)
    return [(first + _ONE_DAY * place).isoformat() for place in range((last - first).days + 1)]


def _mau_window(lines: Sequence[Any]) -> int:
    """The MAU window that was priced."""
    return next(int(one.window_days) for one in lines if one.metric is Metric.MAU)


def _status(found: MonthStatus | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()


def _budget_row(one: Course) -> dict[str, Any]:
    row = one.to_json()
    for name in ("points", "grants"):
        row.pop(name)
    return row


def _implied_row(one: Implied) -> dict[str, Any]:
    """One row of figures; each pair as two columns."""
    row: dict[str, Any] = {
        "budget": one.budget,
        "name": BUDGET_NAMES[one.budget],
        "is_open": one.is_open,
        "allowances": one.allowances,
    }
    for name in ("month", "replace_one", "year", "year_together"):
        epsilon, delta = getattr(one, name)
        row |= {f"{name}_epsilon": epsilon, f"{name}_delta": delta}
    return row
