"""What was said, for readers: the releases, the plans, and the audit log."""

import datetime as dt
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Select, func, select

from dpdau.domain import Figure, Metric, Release, Segment, Window
from dpdau.errors import InvalidPlanError
from dpdau.ledger.canonical import canonical_text, instant_text, release_from_json
from dpdau.ledger.chain import Chain
from dpdau.ledger.tables import audit, charges, plans, releases

PAGE_ROWS_MAX: Final = 10_000
PAGE_ROWS: Final = 1_000
BUDGET_GRANTED: Final = "budget_granted"
ABANDONED: Final = "plan_abandoned"
"""The action of the audit log by which a plan is given up."""
KIND_OF_ACTION: Final[Mapping[str, str]] = {
    "exact_read": "exact",
    "erase": "erasure",
    BUDGET_GRANTED: "grant",
    "plan_opened": "plan",
    ABANDONED: "plan",
    "key_created": "key",
    "key_replaced": "key",
    "key_revoked": "key",
    "key_planned": "pseudonym-key",
    "key_rotated": "pseudonym-key",
    "key_destroyed": "pseudonym-key",
    "backup_made": "backup",
    "ledger_restored": "restore",
    "activity_restored": "restore",
    "card_key_created": "card",
}
"""What somebody did → what kind of event it is; one that is not listed is a kind of its own."""

EverySegment = Literal["every"]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something somebody did that must stay visible."""

    seq: int
    at: dt.datetime
    actor: str
    action: str
    facts: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What it is about: `exact`, `erasure`, `grant`, `plan`, `key` and so on."""
        return KIND_OF_ACTION.get(self.action, self.action)

    def to_json(self) -> dict[str, Any]:
        """What `dpdau audit --since` prints."""
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "kind": self.kind,
            "action": self.action,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFilter:
    """Which releases a reader wants; None leaves a side open."""

    metrics: Collection[Metric | Figure] | None = None
    first: dt.date | None = None
    last: dt.date | None = None
    segment: Segment | EverySegment | None = "every"
    window_days: int | None = None

    def apply(self, wanted: Select[int, str]) -> Select[int, str]:
        """The statement, narrowed."""
        if self.metrics is not None:
            wanted = wanted.where(releases.c.metric.in_([one.value for one in self.metrics]))
        if self.first is not None:
            wanted = wanted.where(releases.c.day >= self.first.isoformat())
        if self.last is not None:
            wanted = wanted.where(releases.c.day <= self.last.isoformat())
        if self.segment != "every":
            wanted = wanted.where(_is_segment(self.segment))
        if self.window_days is not None:
            wanted = wanted.where(releases.c.window_days == self.window_days)
        return wanted


def count_releases(
    connection: Connection, metric: Metric | Figure, window: Window, segment: Segment | None
) -> int:
    """How many numbers were released for one question."""
    return connection.execute(
        select(func.count()).select_from(releases).where(*_asks(metric, window, segment))
    ).scalar_one()


def latest_release(
    connection: Connection, metric: Metric | Figure, window: Window, segment: Segment | None
) -> Release | None:
    """The newest number that was released for one question."""
    statement = (
        select(releases.c.body)
        .where(*_asks(metric, window, segment))
        .order_by(releases.c.seq.desc())
        .limit(1)
    )
    body = connection.execute(statement).scalar_one_or_none()
    return None if body is None else release_from_json(body)


def release_page(
    connection: Connection,
    wanted: ReleaseFilter,
    *,
    after: str | None,
    limit: int,
    newest_first: bool = False,
) -> tuple[list[Release], str | None]:
    """Releases in the order in which they were made, or the other way round, and the cursor of the
    next page."""
    statement = select(releases.c.seq, releases.c.body)
    if newest_first:
        statement = statement.order_by(releases.c.seq.desc())
        statement = statement if after is None else statement.where(releases.c.seq < _cursor(after))
    else:
        statement = statement.order_by(releases.c.seq).where(releases.c.seq > _cursor(after))
    statement = wanted.apply(statement).limit(_rows(limit) + 1)
    rows = connection.execute(statement).all()
    kept = rows[:limit]
    following = str(kept[-1].seq) if len(rows) > limit else None
    return [release_from_json(row.body) for row in kept], following


def release_span(connection: Connection) -> tuple[dt.date, dt.date] | None:
    """The first and the last target day of any DAU, WAU or MAU; None where there is none."""
    days = select(func.min(releases.c.day), func.max(releases.c.day)).where(
        releases.c.metric.in_([metric.value for metric in Metric])
    )
    first, last = connection.execute(days).one()
    return None if first is None else (dt.date.fromisoformat(first), dt.date.fromisoformat(last))


def newest_series(
    connection: Connection,
    metrics: Sequence[Metric | Figure],
    first: dt.date,
    last: dt.date,
    segment: Segment | None,
) -> list[Release]:
    """The newest release of each metric, window and day: by day, then in the order of `metrics`."""
    newest = (
        select(func.max(releases.c.seq))
        .where(
            releases.c.metric.in_([metric.value for metric in metrics]),
            releases.c.day.between(first.isoformat(), last.isoformat()),
            _is_segment(segment),
        )
        .group_by(releases.c.metric, releases.c.window_days, releases.c.day)
    )
    bodies = connection.execute(select(releases.c.body).where(releases.c.seq.in_(newest)))
    order: dict[Metric | Figure, int] = {metric: place for place, metric in enumerate(metrics)}
    found = [release_from_json(body) for body in bodies.scalars()]
    return sorted(found, key=lambda one: (one.window.end, order[one.metric], one.window.days))


def plan_page(
    connection: Connection, *, after: str | None, limit: int, budget_id: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Plans with their charges, JSON-ready, oldest first, and the cursor of the next page."""
    statement = (
        select(plans, charges.c.dp_event, charges.c.neighboring_relation)
        .join_from(plans, charges, plans.c.plan_id == charges.c.plan_id)
        .where(plans.c.seq > _cursor(after))
        .order_by(plans.c.seq)
        .limit(_rows(limit) + 1)
    )
    if budget_id is not None:
        statement = statement.where(plans.c.budget_id == budget_id)
    rows = connection.execute(statement).all()
    kept = rows[:limit]
    found = [
        {
            "plan_id": row.plan_id,
            "kind": row.kind,
            "budget_id": row.budget_id,
            "opened_at": row.opened_at,
            "plan": json.loads(row.body),
            "charge": {
                "dp_event": json.loads(row.dp_event),
                "neighboring_relation": row.neighboring_relation,
            },
        }
        for row in kept
    ]
    return found, str(kept[-1].seq) if len(rows) > limit else None


def append_audit(chain: Chain, *, actor: str, action: str, facts: Mapping[str, Any]) -> int:
    """Writes one row of the audit log; gives its entry's number."""
    row = {
        "at": chain.at,
        "actor": actor,
        "action": action,
        "facts": canonical_text(dict(facts)),
    }
    return chain.append("audit", row)


def audit_rows(
    connection: Connection, since: dt.datetime | None, *, after: int = 0, limit: int
) -> tuple[AuditEvent, ...]:
    """The audit log from an instant, or after an entry, on; oldest first."""
    wanted = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(_rows(limit))
    if since is not None:
        wanted = wanted.where(audit.c.at >= instant_text(since))
    return tuple(
        AuditEvent(
            seq=row.seq,
            at=dt.datetime.fromisoformat(row.at),
            actor=row.actor,
            action=row.action,
            facts=json.loads(row.facts),
        )
        for row in connection.execute(wanted)
    )


def has_grant(connection: Connection, grant_id: str, budget_id: str) -> bool:
    """Whether a grant with this name was made to a budget.

    Raises:
        InvalidPlanError: It was made to another budget.
    """
    named = audit.c.facts.contains(canonical_text({"grant_id": grant_id})[1:-1], autoescape=True)
    wanted = select(audit.c.facts).where(audit.c.action == BUDGET_GRANTED, named)
    for row in connection.execute(wanted):
        facts = json.loads(row.facts)
        if facts.get("grant_id") == grant_id:
            if facts["budget_id"] != budget_id:
                raise InvalidPlanError("Expected a new grant id, found one of another budget.")
            return True
    return False


def _rows(limit: int) -> int:
    """A page's limit, checked."""
    assert 1 <= limit <= PAGE_ROWS_MAX, "a page has a limit"
    return limit


def _cursor(after: str | None) -> int:
    """The entry after which a page starts.

    Raises:
        InvalidPlanError: The text is not a cursor that a page gave out.
    """
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) <= len(str(2**63))):
        raise InvalidPlanError("Expected the cursor of a page before, found another text.")
    return min(int(after), 2**63 - 1)


def _is_segment(segment: Segment | None) -> Any:
    """The rows of one segment, or of the whole population."""
    return releases.c.segment.is_not_distinct_from(None if segment is None else str(segment))


def _asks(metric: Metric | Figure, window: Window, segment: Segment | None) -> tuple[Any, ...]:
    """The rows that answer one question."""
    return (
        releases.c.metric == metric.value,
        releases.c.day == window.end.isoformat(),
        releases.c.window_days == window.days,
        _is_segment(segment),
    )
