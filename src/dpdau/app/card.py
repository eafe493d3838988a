"""The privacy card: what was promised for a published month, signed, and checked without trust.

A card is made from the ledger alone: charges, releases and its own integrity. The statement is
canonical JSON under an Ed25519 signature; a page is a rendering of it and of nothing else, so
whoever has the page renders it again and compares.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from dpdau import __version__
from dpdau.accounting.budget import Budget, epsilon_spent
from dpdau.accounting.calibration import round_epsilon_up
from dpdau.accounting.events import to_json
from dpdau.app.implied import YEAR_MONTHS, Exact, composed, guaranteed
from dpdau.app.product import App
from dpdau.app.signed_card import CARD_FORMAT, Card, CardKey
from dpdau.datadir import DataDir
from dpdau.domain import Metric, Release, month_days
from dpdau.errors import (
    LedgerConflictError,
    LedgerCorruptError,
    NotFoundError,
    StoreCorruptError,
)
from dpdau.ledger import AuditReport, BudgetState, release_to_json
from dpdau.plan import LIVE, PLAN

CARD_KEY_CREATED: Final = "card_key_created"
_READ_TRIES: Final = 3


def issue(app: App, month: str, *, new_key: bool = False) -> Card:
    """The signed card of a month; the key is made if there is none, and the ledger has it noted.

    Args:
        app: The product.
        month: YYYY-MM.
        new_key: Whether a key may take the place of the one that the ledger names.

    Raises:
        NotFoundError: Nothing was charged for days of that month.
        StoreCorruptError: The key is not the one that the ledger names, and `new_key` is not given.
        LedgerCorruptError: The ledger is not sound: no statement is made from it.
        LedgerConflictError: It was written to all the time.
    """
    month_days(month)
    _charged(app, month)
    path = DataDir(app.settings.DATA_DIR).card_key
    known = _noted_key(app)
    if not path.exists():
        if known is not None and not new_key:
            raise _another_key(known, "none")
        CardKey.create(path)
    key = CardKey.open(path)
    if key.public != known:
        if known is not None and not new_key:
            raise _another_key(known, key.public)
        app.ledger.audit_event("operator", CARD_KEY_CREATED, {"public_key": key.public})
    return key.sign(statement_of(app, month))


def _noted_key(app: App) -> str | None:
    """The public key that the ledger names last, if any."""
    found, seq = None, 0
    while page := app.ledger.audit_log(after=seq):
        for one in page:
            if one.action == CARD_KEY_CREATED:
                found = str(one.facts["public_key"])
        seq = page[-1].seq
    return found


def _another_key(known: str, found: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"Expected the key that signs cards, {known} by the ledger, found {found}. Restore its "
        "file; or, where it is lost, pass --new-key and tell the readers of your cards the new one."
    )


def statement_of(app: App, month: str) -> dict[str, Any]:
    """What a card says of a month, from one state of the ledger.

    Guarantee: no exact count and nothing but charges, releases and settings that are public.

    Raises:
        NotFoundError, LedgerCorruptError, LedgerConflictError: As `issue`.
    """
    for _ in range(_READ_TRIES):
        before = app.ledger.verify()
        if not before.ok:
            raise LedgerCorruptError(
                f"Expected a sound ledger to make a statement from, found: {before.problems[0]} "
                "Run: dpdau audit",
                findings=before.finding_count,
            )
        states = _charged(app, month)
        releases = _releases(app, month)
        if app.ledger.verify().head_hash == before.head_hash:
            return _statement(app, month, before, states, releases)
    raise LedgerConflictError("Expected a ledger that stands still for a moment; try again.")


def _charged(app: App, month: str) -> list[BudgetState]:
    """The budgets of a month to which something was charged."""
    states = [state for state in app.ledger.states(month) if state.events]
    if not states:
        raise NotFoundError(
            f"Expected charges for days of {month}, found none: there is nothing to state. To see "
            f"what is charged: dpdau budget all --day {month}-01"
        )
    return states


def _statement(
    app: App,
    month: str,
    report: AuditReport,
    states: Sequence[BudgetState],
    releases: Sequence[Release],
) -> dict[str, Any]:
    """The parts in one place."""
    budgets = sorted((state.budget for state in states), key=_place)
    opened = {one.metric for one in budgets}
    first, last = month_days(month)
    live = () if app.settings.LIVE_EPSILON is None else (LIVE,)
    later = [app.budget(name, first) for name in (PLAN, *Metric, *live) if name not in opened]
    days = {one.window.end for one in releases}
    return {
        "format": CARD_FORMAT,
        "month": month,
        "issued_at": app.calendar.clock().astimezone(dt.UTC).isoformat(timespec="seconds"),
        "timezones": sorted({one.timezone for one in releases} or {app.settings.TIMEZONE}),
        "unit": "user",
        "neighboring_relation": "add_or_remove_one",
        "published": {
            "numbers": len(releases),
            "days": len(days),
            "days_of_month": (last - first).days + 1,
            "releases_sha256": _digest(releases),
            "series": _series(releases),
        },
        "budgets": [
            {
                **_promises(one),
                "mechanisms": sorted({str(to_json(event)["kind"]) for event in state.events}),
                "releases": state.release_count,
                "allowances": one.allowances,
                "rho_spent": str(state.spent.rho),
                "epsilon_charged": epsilon_spent(one, state.spent),
            }
            for one in budgets
            for state in states
            if state.budget is one
        ],
        "together": _together(budgets),
        "not_charged_yet": [
            {"budget": one.metric, "epsilon": one.epsilon_cap, "delta": one.delta} for one in later
        ],
        "code_versions": sorted({one.version for one in releases} | {__version__}),
        "ledger": {
            "id": report.ledger_id,
            "entries": report.entries,
            "head_hash": report.head_hash,
        },
    }


def _promises(budget: Budget) -> dict[str, Any]:
    """What one budget guarantees, and what follows from it."""
    return {
        "budget": budget.metric,
        "filter": budget.filter_name.value,
        **_figures([budget], guaranteed(budget)),
    }


def _together(budgets: Sequence[Budget]) -> dict[str, Any]:
    """The same for all budgets of the month at once, composed in one way for each relation.

    Source: `docs/guarantee.md`, Several mechanisms over one stream.
    """
    return _figures(budgets, composed(budgets))


def _figures(budgets: Sequence[Budget], month: Exact) -> dict[str, Any]:
    """A guarantee, and what follows from it for another relation and a year."""
    epsilon, delta = month
    return {
        "month": _figure(month),
        "one_replaced": _figure(composed(budgets, replaced=True)),
        "year_added": _figure((YEAR_MONTHS * epsilon, YEAR_MONTHS * delta)),
        "year_rho_added": _figure(composed(budgets, months=YEAR_MONTHS)),
    }


def _figure(exact: Exact) -> dict[str, float]:
    return {"epsilon": round_epsilon_up(exact[0]), "delta": float(exact[1])}


def _place(budget: Budget) -> tuple[int, str]:
    """The order of the guarantee: the plan first, then the metrics."""
    order = (PLAN, *(one.value for one in Metric), LIVE)
    return order.index(budget.metric), budget.period


def _series(releases: Sequence[Release]) -> list[dict[str, Any]]:
    """For each metric, window and segment: how many numbers, and how wide at most."""
    found: dict[tuple[str, int, str], list[Release]] = {}
    for one in releases:
        segment = "" if one.segment is None else str(one.segment)
        found.setdefault((segment, one.window.days, one.metric.value), []).append(one)
    return [
        {
            "metric": metric,
            "window_days": window_days,
            "segment": segment or None,
            "numbers": len(group),
            "half_width_95_max": max(
                max(one.upper_95 - one.estimate, one.estimate - one.lower_95) for one in group
            ),
        }
        for (segment, window_days, metric), group in sorted(found.items())
    ]


def _releases(app: App, month: str) -> list[Release]:
    """Every number whose target day is in the month, oldest first."""
    first, last = month_days(month)
    found: list[Release] = []
    after, more = None, True
    while more:
        page, after = app.ledger.releases(first=first, last=last, after=after)
        found += page
        more = after is not None
    return found


def _digest(releases: Sequence[Release]) -> str:
    """One hash of every published number of the month, in the order of the ledger."""
    whole = hashlib.sha256()
    for one in releases:
        whole.update(release_to_json(one) + b"\n")
    return whole.hexdigest()
