"""The content of each page, as plain values: what its JSON is, its CSV, and what its HTML shows.

Everything here was released before or is public; a ratio of two releases is arithmetic on them and
is named so. Nothing is charged.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dpdau import __version__
from dpdau.api import promises, questions
from dpdau.api.asked import Asked, Sheet
from dpdau.api.routes import CSV_COLUMNS, segment_of
from dpdau.app import App
from dpdau.domain import Figure, Metric, Release, Scope, Segment
from dpdau.errors import DpdauError

_ONE_DAY: Final = dt.timedelta(days=1)
_WEEK: Final = dt.timedelta(days=7)
_WAITING_DAYS_MAX: Final = 40
"""Beyond that a plan is long overdue, and a chart would be all waiting."""
METRIC_NAMES: Final = {
    Metric.DAU: "Daily active users",
    Metric.WAU: "Weekly active users",
    Metric.MAU: "Monthly active users",
}
_CAUSES: Final = {
    "broker_unavailable": "Kafka does not answer, or does not take what it is given",
    "topic_mismatch": "the Kafka topic is not the one that was read before",
    "store_unavailable": "the activity store cannot write",
    "store_corrupt": "the activity store contradicts itself: run `dpdau doctor`",
    "ledger_conflict": "another writer held the ledger for too long",
    "ledger_unavailable": "the ledger cannot write",
    "ledger_corrupt": "the ledger is not sound: run `dpdau audit`",
    "spool_full": "the spool of events is full",
    "spool_unavailable": "the spool of events cannot be written",
    "warehouse_unavailable": "the warehouse does not answer",
    "data_dir_in_use": "another process holds the data directory",
}
_GROWTH_WORDS: Final = {
    Figure.NEW: "active {when}, and never before",
    Figure.RETAINED: "active {when}, and in the window before it too",
    Figure.RESURRECTED: "active {when}, not in the window before it, and earlier than both",
    Figure.CHURNED: "active in the window before, and not {when}",
}


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


def releases(asked: Asked) -> Sheet:
    """What was released, newest first, each number with its definition and its price."""
    query = asked.query
    if query.first and query.last:
        questions.require_range(query.first, query.last)
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
    is_gateway = app.settings.INGEST_MODE == "kafka"
    checks = [
        _check(
            "Store, ledger and Kafka" if is_gateway else "Store and ledger",
            asked.is_ready,
            "all can write" if is_gateway else "both can write",
            _CAUSES.get(asked.cause, "one of them cannot write: see the log of the service"),
        ),
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
    reason = asked.showing.cannot_erase() if may else "Your key lacks the scope `erase`."
    facts = {
        "may_erase": may,
        "can_erase": reason is None,
        "cannot_erase": reason,
        "erasures": recent,
        "receipt": receipt,
    }
    return Sheet(facts, ("erasure_id", "at"), recent)


SHEETS: Final[Mapping[str, tuple[Callable[[Asked], Sheet], type[questions.PageQuestion]]]] = {
    "overview": (overview, questions.SeriesQuestion),
    "segments": (segments, questions.SegmentQuestion),
    "budget": (promises.budget, questions.MonthQuestion),
    "plans": (promises.plans, questions.PriceQuestion),
    "releases": (releases, questions.LogQuestion),
    "health": (health, questions.PageQuestion),
    "erasures": (erasures, questions.ReceiptQuestion),
    "guarantee": (promises.guarantee, questions.MonthQuestion),
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
    questions.require_range(first, last)
    # Beyond what is released there is nothing to show, however long the range is.
    start, end = (max(first, span[0]), min(last, span[1])) if span else (first, first - _ONE_DAY)
    found = (
        asked.showing.series(start, end, segment=segment, view=query.view) if start <= end else []
    )
    by_day: dict[dt.date, list[Release]] = {}
    for one in found:
        by_day.setdefault(one.window.end, []).append(one)
    days = [
        {"day": day.isoformat(), **_by_metric(by_day.get(day, []))}
        for day in (start + _ONE_DAY * place for place in range((end - start).days + 1))
    ]
    rows = [one.to_json() for one in found]
    facts = {
        "policy": asked.app.settings.RELEASE_POLICY,
        "last_closed_day": asked.app.calendar.last_closed_day().isoformat(),
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


def _check(name: str, is_fine: bool, fine: str, wrong: str) -> dict[str, str]:
    state, message = ("ok", fine) if is_fine else ("fail", wrong)
    return {"name": name, "state": state, "message": message}


def _text(day: dt.date | None) -> str | None:
    return None if day is None else day.isoformat()
