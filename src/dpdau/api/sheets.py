"""The content of each page, as plain values: what its JSON is, its CSV, and what its HTML shows.

Everything here was released before or is public; a ratio of two releases is arithmetic on them and
is named so. Nothing is charged.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dpdau import __version__
from dpdau.api import questions
from dpdau.api.routes import CSV_COLUMNS, segment_of
from dpdau.app import App
from dpdau.app.showing import Course, Implied, Showing
from dpdau.domain import (
    Caller,
    Figure,
    Metric,
    MonthStatus,
    Release,
    Scope,
    Segment,
    month_days,
    month_of,
)
from dpdau.errors import DpdauError, InvalidPlanError, ReleaseNotReadyError

_ONE_DAY: Final = dt.timedelta(days=1)
_WEEK: Final = dt.timedelta(days=7)
_WAITING_DAYS_MAX: Final = 40
"""Beyond that a plan is long overdue, and a chart would be all waiting."""
METRIC_NAMES: Final = {
    Metric.DAU: "Daily active users",
    Metric.WAU: "Weekly active users",
    Metric.MAU: "Monthly active users",
}
_GROWTH_WORDS: Final = {
    Figure.NEW: "active {when}, and never before",
    Figure.RETAINED: "active {when}, and in the window before it too",
    Figure.RESURRECTED: "active {when}, not in the window before it, and earlier than both",
    Figure.CHURNED: "active in the window before, and not {when}",
}
BUDGET_NAMES: Final = {
    "plan": "Month plan",
    "dau": "DAU on demand",
    "wau": "WAU on demand",
    "mau": "MAU on demand",
    "live": "Live counter",
    "all": "All budgets spent to the end",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question for a page."""

    app: App
    showing: Showing
    caller: Caller
    is_ready: bool
    query: Any


@dataclass(frozen=True, slots=True)
class Sheet:
    """The content of one page.

    Attributes:
        facts: The JSON form, and all that the HTML shows.
        columns: Of the CSV form.
        rows: Of the CSV form.
        following: The cursor of the next page, where there is one.
    """

    facts: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    following: str | None = None


def definition(release: Release) -> str:
    """What a number counts, in one sentence."""
    window, metric = release.window, release.metric
    who = "Distinct users" if release.segment is None else f"Distinct users of {release.segment}"
    when = f"on one or more of the {window.days} days from {window.start.isoformat()} to"
    if window.days == 1:
        when = "on"
    when = f"{when} {window.end.isoformat()} ({release.timezone})"
    if metric is Figure.LIVE:
        when = f"{when}, up to the moment of the release"
    if isinstance(metric, Metric) or metric is Figure.LIVE:
        return f"{who} active {when}."
    return f"{who} {_GROWTH_WORDS[metric].format(when=when)}."


def overview(asked: Asked) -> Sheet:
    """DAU, WAU and MAU over time, with their bands, and the newest of each."""
    return _series_sheet(asked, None)


def segments(asked: Asked) -> Sheet:
    """The same for one segment, beside the newest numbers of all that a plan publishes."""
    listed = [Segment.parse(text) for text in asked.app.settings.PLAN_SEGMENTS]
    chosen = segment_of(asked.app, asked.query.segment) or (listed[0] if listed else None)
    sheet = _series_sheet(asked, chosen)
    last = sheet.facts["last_day"]
    day = None if last is None else dt.date.fromisoformat(last)
    newest = []
    for one in [] if day is None else [None, *listed]:
        found = asked.showing.series(day, day, segment=one) if day else []
        newest.append({"segment": None if one is None else str(one)} | _by_metric(found))
    choices = [None, *listed] + ([chosen] if chosen and chosen not in listed else [])
    facts = {
        **sheet.facts,
        "choices": [str(one) for one in choices if one is not None],
        "dimensions": list(asked.app.settings.DIMENSIONS),
        "newest": newest,
    }
    return Sheet(facts, sheet.columns, sheet.rows)


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
    query, settings = asked.query, asked.app.settings
    month = query.month or _next_month(asked)
    refusal, quote = None, None
    try:
        quote = asked.showing.price(
            month, epsilon=query.epsilon, delta=query.delta, mau_window_days=query.window
        )
    except ReleaseNotReadyError as error:
        refusal = error.message
    configured = {
        "epsilon": float(settings.PLAN_EPSILON),
        "delta": float(settings.PLAN_DELTA),
        "window": settings.MAU_WINDOW_DAYS,
    }
    window = query.window or settings.MAU_WINDOW_DAYS
    asked_terms = {
        "epsilon": quote.epsilon if quote else configured["epsilon"],
        "delta": quote.delta if quote else configured["delta"],
        "window": _mau_window(quote.lines) if quote else window,
    }
    lines = [] if quote is None else [one.to_json() for one in quote.lines]
    days = [] if quote is None else _days_of(month)
    facts = {
        "month": month,
        "terms": asked_terms,
        "configured": configured,
        "is_configured": asked_terms == configured,
        "windows": asked.showing.mau_windows(),
        "quote": None if quote is None else {**quote.to_json(), "lines": lines},
        "days": days,
        "refusal": refusal,
        "plan": _status(asked.showing.month(month)),
        "may_open": asked.caller.may(Scope.RELEASE),
        "policy": settings.RELEASE_POLICY,
    }
    shared = {"month": month, "epsilon": asked_terms["epsilon"], "delta": asked_terms["delta"]}
    columns = (*shared, "metric", "window_days", "segment", "day", "half_width_95")
    rows = [
        {**shared, **line, "day": day, "half_width_95": width}
        for line in lines
        for day, width in zip(days, line["half_widths_95"], strict=True)
    ]
    return Sheet(facts, columns, rows)


def releases(asked: Asked) -> Sheet:
    """What was released, newest first, each number with its definition and its price."""
    query = asked.query
    found, following = asked.showing.log(
        metric=query.metric,
        first=query.first,
        last=query.last,
        segment=segment_of(asked.app, query.segment),
        after=query.after,
        limit=query.limit,
    )
    rows = [{**one.to_json(), "definition": definition(one)} for one in found]
    facts = {
        "metric": query.metric,
        "from": _text(query.first),
        "to": _text(query.last),
        "segment": query.segment,
        "limit": query.limit,
        "releases": rows,
        "next": following,
        "span": [day.isoformat() for day in asked.showing.span() or ()],
    }
    return Sheet(facts, (*CSV_COLUMNS, "definition"), rows, following)


def health(asked: Asked) -> Sheet:
    """Whether the service does what it should."""
    app = asked.app
    calendar, keys = app.calendar, app.keys
    waiting = asked.showing.waiting()
    late = waiting is not None and waiting[1] + dt.timedelta(hours=1) < calendar.clock()
    overdue = keys.overdue_days()
    checks = [
        _check("Store and ledger", asked.is_ready, "both can write", "one of them cannot write"),
        _check(
            "Releases",
            not late,
            "no day is waiting longer than it should",
            "a closed day is not released: see the log of the service",
        ),
        _check(
            "Pseudonym key",
            overdue == 0,
            f"in use for {keys.age_days()} days",
            f"should have been replaced {overdue} days ago: run `dpdau rotate-salt`",
        ),
    ]
    # Shares of events would tell readers of single events; operators see all of it anyway.
    is_operator = asked.caller.may(Scope.ADMIN)
    intake = asked.showing.intake() if is_operator else {}
    facts = {
        "is_ready": asked.is_ready,
        "checks": checks,
        "version": __version__,
        "timezone": app.settings.TIMEZONE,
        "now": calendar.clock().isoformat(),
        "last_closed_day": calendar.last_closed_day().isoformat(),
        "next_due": app.next_due().isoformat(),
        "waiting_from": None if waiting is None else waiting[0].isoformat(),
        "ingest_mode": app.settings.INGEST_MODE,
        "live": is_live(app),
        "intake": intake,
    }
    told = [
        {"name": f"events {name}", "state": "info", "message": share}
        for name, share in intake.items()
    ]
    rows = [*checks, *told]
    return Sheet(facts, ("name", "state", "message"), rows)


def erasures(asked: Asked) -> Sheet:
    """The erasures of the last two months, and the receipt of one."""
    may = asked.caller.may(Scope.ERASE)
    recent = asked.showing.erasures() if may else []
    wanted = asked.query.receipt
    receipt = asked.app.erasure(wanted).to_json() if wanted and may else None
    facts = {"may_erase": may, "erasures": recent, "receipt": receipt}
    return Sheet(facts, ("erasure_id", "at"), recent)


def guarantee(asked: Asked) -> Sheet:
    """What is promised to each user, in figures."""
    found = [_implied_row(one) for one in asked.showing.implied()]
    settings = asked.app.settings
    month = month_of(asked.app.calendar.today())
    facts = {
        "figures": found,
        "month": month,
        "policy": settings.RELEASE_POLICY,
        "timezone": settings.TIMEZONE,
        "window": settings.MAU_WINDOW_DAYS,
        "grace_hours": settings.GRACE_HOURS,
        "live": settings.LIVE_EPSILON is not None,
    }
    return Sheet(facts, tuple(found[0]), found)


SHEETS: Final[Mapping[str, tuple[Callable[[Asked], Sheet], type[questions.PageQuestion]]]] = {
    "overview": (overview, questions.SeriesQuestion),
    "segments": (segments, questions.SegmentQuestion),
    "budget": (budget, questions.MonthQuestion),
    "plans": (plans, questions.PriceQuestion),
    "releases": (releases, questions.LogQuestion),
    "health": (health, questions.PageQuestion),
    "erasures": (erasures, questions.ReceiptQuestion),
    "guarantee": (guarantee, questions.PageQuestion),
}


def is_live(app: App) -> bool:
    """Whether the live counter is on."""
    try:
        app.live.since(None)
    except DpdauError:
        return False
    return True


def _series_sheet(asked: Asked, segment: Segment | None) -> Sheet:
    """The numbers of one segment in a range of days; by itself the last ones."""
    query, span = asked.query, asked.showing.span()
    today = asked.app.calendar.today()
    last = query.last or (span[1] if span else today)
    first = query.first or max(last - dt.timedelta(days=query.days - 1), span[0] if span else last)
    if first > last:
        raise InvalidPlanError("Expected a range that ends on or after the day it begins.")
    found = asked.showing.series(first, last, segment=segment, view=query.view)
    by_day: dict[dt.date, list[Release]] = {}
    for one in found:
        by_day.setdefault(one.window.end, []).append(one)
    days = [
        {"day": day.isoformat(), **_by_metric(by_day.get(day, []))}
        for day in (first + _ONE_DAY * place for place in range((last - first).days + 1))
    ]
    rows = [one.to_json() for one in found]
    facts = {
        "first_day": _text(span[0]) if span else None,
        "last_day": _text(span[1]) if span else None,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "today": today.isoformat(),
        "timezone": asked.app.settings.TIMEZONE,
        "segment": None if segment is None else str(segment),
        "view": query.view.value,
        "range_days": None if query.first or query.last else query.days,
        "latest": [_latest(found, metric) for metric in Metric],
        "latest_stickiness": next((day for day in reversed(days) if day["stickiness"]), None),
        "waiting": _waiting(asked, last) if query.last is None else None,
        "is_live": segment is None and is_live(asked.app),
        "days": days,
        "releases": rows,
    }
    return Sheet(facts, CSV_COLUMNS, rows)


def _by_metric(found: Sequence[Release]) -> dict[str, Any]:
    """The numbers of one day, and their ratio; None where there is none."""
    known = {one.metric: one for one in found}
    shown: dict[str, Any] = {
        metric.value: _number(known[metric]) if metric in known else None for metric in Metric
    }
    shown["stickiness"] = _stickiness(known.get(Metric.DAU), known.get(Metric.MAU))
    return shown


def _number(one: Release) -> dict[str, Any]:
    return {
        "estimate": one.estimate,
        "lower": one.lower_95,
        "upper": one.upper_95,
        "status": one.status,
    }


def _stickiness(dau: Release | None, mau: Release | None) -> dict[str, float] | None:
    """DAU / MAU in percent, which is arithmetic on two releases.

    Its interval holds where both intervals do: in 90 % of all cases at least.
    """
    if dau is None or mau is None or mau.lower_95 <= 0:
        return None
    return {
        "estimate": round(100 * dau.estimate / mau.estimate, 2),
        "lower": round(100 * max(dau.lower_95, 0) / mau.upper_95, 2),
        "upper": round(100 * max(dau.upper_95, 0) / mau.lower_95, 2),
    }


def _latest(found: Sequence[Release], metric: Metric) -> dict[str, Any]:
    """The newest number of a metric, with what it counts and how it moved in a week."""
    own = {one.window.end: one for one in found if one.metric is metric}
    about: dict[str, Any] = {"metric": metric.value, "release": None, "change": None}
    if not own:
        return about
    newest = own[max(own)]
    before = own.get(newest.window.end - _WEEK)
    if before is not None:
        moved = newest.estimate - before.estimate
        # Whatever ties the noise of the two days together, both lie within their intervals.
        reach = (newest.upper_95 - newest.lower_95 + before.upper_95 - before.lower_95) // 2
        about["change"] = {"users": moved, "is_beyond_noise": abs(moved) > reach}
    about["release"] = {**newest.to_json(), "definition": definition(newest)}
    return about


def _waiting(asked: Asked, last: dt.date) -> dict[str, str] | None:
    """The days from the first that is not released to today, where that is not long ago."""
    found, today = asked.showing.waiting(), asked.app.calendar.today()
    if found is None or found[0] <= last or (today - found[0]).days > _WAITING_DAYS_MAX:
        return None
    first = min(found[0], today)
    return {"from": first.isoformat(), "to": today.isoformat(), "closes_at": found[1].isoformat()}


def _burn_down(
    courses: Sequence[Course], begin: dt.datetime, *, now: dt.datetime, over: dt.datetime
) -> list[dict[str, Any]]:
    """The share that is left of each budget, in percent, whenever one was charged; and the days
    on which they will be used up at the pace so far."""
    moments = {at for one in courses for at, _ in one.points}
    if moments and min(moments) > over:
        begin = min(moments) - _ONE_DAY
    begin = min({begin, *moments})
    end = max({min(max(now, begin), over), *moments})
    rows = []
    for at in sorted({begin, *moments, end}):
        left: dict[str, Any] = {"at": at.isoformat()}
        for one in courses:
            known = [share for moment, share in one.points if moment <= at]
            left[one.metric] = round(100 * (known[-1] if known else 1), 2)
        rows.append(left)
    ahead = [one for one in courses if one.ends_at is not None and one.ends_at > end]
    for one in ahead:
        rows[-1][f"{one.metric}_forecast"] = rows[-1][one.metric]
    for one in sorted(ahead, key=lambda one: str(one.ends_at)):
        assert one.ends_at is not None, "only those with an end are ahead"
        rows.append({"at": one.ends_at.isoformat(), f"{one.metric}_forecast": 0})
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
    row.pop("points")
    return row


def _implied_row(one: Implied) -> dict[str, Any]:
    """One row of figures; each pair as two columns."""
    row: dict[str, Any] = {"budget": one.budget, "name": BUDGET_NAMES[one.budget]}
    for name in ("month", "replace_one", "year", "year_together"):
        epsilon, delta = getattr(one, name)
        row |= {f"{name}_epsilon": epsilon, f"{name}_delta": delta}
    return row


def _check(name: str, is_fine: bool, fine: str, wrong: str) -> dict[str, str]:
    state, message = ("ok", fine) if is_fine else ("fail", wrong)
    return {"name": name, "state": state, "message": message}


def _text(day: dt.date | None) -> str | None:
    return None if day is None else day.isoformat()
