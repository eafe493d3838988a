"""What was said, for readers."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpdau.domain import Metric, Segment
from dpdau.errors import InvalidPlanError
from dpdau.ledger import Ledger
from simulation.ledger_cases import DAY, open_ledger, release, request

IOS = Segment("platform", "ios")
ANDROID = Segment("platform", "android")
LATER = DAY + dt.timedelta(days=3)
MADE = {
    "a": release("a"),
    "b": release("b", segment=IOS),
    "c": release("c", segment=ANDROID, day=LATER),
    "d": release("d", metric=Metric.MAU, window_days=30),
    "e": release("e", metric=Metric.WAU, window_days=7, day=LATER),
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with one release of each sort."""
    folder: Path = tmp_path_factory.mktemp("log")
    one = open_ledger(folder)
    for plan_id, made in MADE.items():
        one.step(request(plan_id), lambda made=made: made)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcde"),
        ({"metrics": [Metric.DAU]}, "abc"),
        ({"metrics": [Metric.MAU, Metric.WAU]}, "de"),
        ({"metrics": []}, ""),
        ({"first": LATER}, "ce"),
        ({"last": DAY}, "abd"),
        ({"first": DAY, "last": DAY}, "abd"),
        ({"segment": None}, "ade"),
        ({"segment": IOS}, "b"),
        ({"segment": "every"}, "abcde"),
        ({"window_days": 7}, "e"),
        ({"metrics": [Metric.DAU], "segment": None, "window_days": 1}, "a"),
    ],
)
def test_releases_are_narrowed(ledger: Ledger, wanted: dict[str, Any], found: str) -> None:
    """Each side of a filter narrows the log, and an open side does not."""
    page, after = ledger.releases(**wanted)

    assert (list(found), None) == ([one.plan_id for one in page], after)


def test_a_filter_and_a_cursor_work_together(ledger: Ledger) -> None:
    """Pages of a narrowed log neither repeat nor skip."""
    first, after = ledger.releases(metrics=[Metric.DAU], limit=2)
    second, end = ledger.releases(metrics=[Metric.DAU], limit=2, after=after)

    assert (["a", "b"], ["c"], None) == (
        [one.plan_id for one in first],
        [one.plan_id for one in second],
        end,
    )


@pytest.mark.parametrize("after", ["", "-1", "x", "1.0", "١", "1" * 21])
def test_a_text_that_is_no_cursor_is_refused(ledger: Ledger, after: str) -> None:
    """Only what a page gave out is a cursor."""
    with pytest.raises(InvalidPlanError, match="cursor"):
        ledger.releases(after=after)


def test_a_cursor_past_the_end_gives_an_empty_page(ledger: Ledger) -> None:
    """The largest number is a cursor with nothing behind it."""
    assert ([], None) == ledger.releases(after="9" * 19)
    assert ([], None) == ledger.plans(after="9" * 19)


def test_audit_log_is_bounded(ledger: Ledger) -> None:
    """A limit gives the oldest rows from the instant on."""
    for number in range(3):
        ledger.audit_event("operator", "noted", {"number": number})

    rows = ledger.audit_log()

    assert rows[:2] == ledger.audit_log(limit=2)
    assert rows[1:] == ledger.audit_log(rows[1].at)
    assert rows[1:2] == ledger.audit_log(
        rows[1].at.astimezone(dt.timezone(dt.timedelta(hours=5))), limit=1
    )


def test_the_log_is_read_from_its_end_too(ledger: Ledger) -> None:
    """Newest first, page by page, with a filter; then nothing follows."""
    first, after = ledger.releases(limit=3, newest_first=True)
    rest, end = ledger.releases(limit=3, after=after, newest_first=True)
    later, _ = ledger.releases(first=LATER, newest_first=True)

    assert [f"rel-{one}" for one in "edcba"] == [one.release_id for one in [*first, *rest]]
    assert end is None
    assert ["rel-e", "rel-c"] == [one.release_id for one in later]


def test_the_span_is_from_the_first_to_the_last_day(ledger: Ledger, tmp_path: Path) -> None:
    """Of whatever metric; None before the first release."""
    empty = open_ledger(tmp_path)

    assert (DAY, LATER) == ledger.span()
    assert empty.span() is None
    empty.close()


def test_plans_of_one_budget(ledger: Ledger) -> None:
    """Only what was charged to it."""
    budgets = {row["budget_id"] for row in ledger.plans()[0]}

    for budget_id in budgets:
        found, _ = ledger.plans(budget_id=budget_id)
        assert {budget_id} == {row["budget_id"] for row in found}
    assert [] == ledger.plans(budget_id="none")[0]
