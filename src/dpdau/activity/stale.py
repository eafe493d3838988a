"""Which rows of the store have to go, group by group, and what is left of those that stay."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from dpdau.activity.held import HELD, PlanMonth
from dpdau.activity.labels import LABELS, is_before, plan_groups
from dpdau.activity.masks import PAGE_DAYS, days_mask, drop_before, page_of
from dpdau.activity.runs import Rows, Table
from dpdau.activity.seen import SEEN, oldest_week
from dpdau.activity.today import is_live_group, live_group

RowChange = Callable[[int, Rows], Rows]
Stale = Callable[[int, int], bool]
"""(group, digest) → whether something in the group has to go."""


def dropping(stale: Stale) -> RowChange:
    """Takes out whole groups."""
    return lambda group, rows: rows.take(slice(0)) if stale(group, 0) else rows


def dropping_days(first: int) -> RowChange:
    """Takes the days before one out of mask rows."""
    return lambda page, rows: drop_before(page, rows, first)


def stale_days(first: int) -> Stale:
    """Whether the masks of a page, given their digest, have something before a day."""
    return lambda page, digest: (
        page < page_of(first) or bool(digest & int(days_mask(page, page * PAGE_DAYS, first - 1)))
    )


def before_month(month: int) -> Stale:
    """Whether a group holds the ordinary labels of a month before one."""
    return lambda group, _digest: is_before(group, month)


def among(groups: range) -> Stale:
    """Whether a group is one of some."""
    return lambda group, _digest: group in groups


def live_but(kept: int | None) -> Stale:
    """Whether a group says who is out of a live day other than one."""
    spared = None if kept is None else live_group(kept)
    return lambda group, _digest: is_live_group(group) and group != spared


def kept_for_nothing(
    months: Sequence[PlanMonth], live: int | None, now: dt.datetime
) -> Mapping[Table, Stale]:
    """What no open month and no live day needs, and event ids older than the retention."""
    held = {group for month in months for group in month.groups()}
    held |= set() if live is None else {live_group(live)}
    planned = {group for month in months for group in plan_groups(month.month)}
    return {
        HELD: lambda group, _digest: group not in held,
        LABELS: lambda group, _digest: group >= plan_groups(0).start and group not in planned,
        SEEN: lambda group, _digest: group < oldest_week(now),
    }
