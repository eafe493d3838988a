"""Day masks against the fold over sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity.masks import (
    MASKS,
    PAGE_DAYS,
    as_base,
    days_mask,
    days_of,
    drop_before,
    from_rows,
    page_of,
)
from dpdau.activity.runs import Rows, Run, merge_runs
from dpdau.activity.turnstile import fold
from dpdau.domain import Event
from strategies import batch, event_streams


def run_of(stream: list[Event]) -> Run:
    """The masks of one batch."""
    columns = batch(stream)
    return from_rows(columns.pseudonym, columns.day, columns.add)


def pairs(run: Run) -> frozenset[tuple[int, int]]:
    """The pairs that a run puts in."""
    return frozenset(
        (who, day)
        for page, rows in run.items()
        for who, add in zip(rows.key.tolist(), rows.values[0].tolist(), strict=True)
        for day in days_of(page, add)
    )


@given(stream=event_streams(max_size=40))
def test_a_batch_folds_to_its_last_events(stream: list[Event]) -> None:
    """The add masks hold the pairs of the fold; the remove masks the other pairs touched."""
    run = run_of(stream)
    removed = {page: Rows(rows.key, (rows.values[1], rows.values[0])) for page, rows in run.items()}

    assert fold(stream).pairs == pairs(run)
    assert {(one.pseudonym, one.day) for one in stream} - fold(stream).pairs == pairs(removed)


@given(stream=event_streams(max_size=40), data=st.data())
def test_a_merge_of_two_batches_is_the_fold_of_both(
    stream: list[Event], data: st.DataObject
) -> None:
    """Cutting a stream anywhere and merging gives the masks of the whole."""
    place = data.draw(st.integers(0, len(stream)))
    merged = merge_runs(MASKS, run_of(stream[:place]), run_of(stream[place:]))

    assert fold(stream).pairs == pairs(merged)


@given(stream=event_streams(max_size=40))
def test_masks_are_disjoint_and_sorted(stream: list[Event]) -> None:
    """No day is both put in and taken out, and each key stands once, in order."""
    for rows in run_of(stream).values():
        assert not np.any(rows.values[0] & rows.values[1])
        assert np.all(rows.key[1:] > rows.key[:-1])


@given(stream=event_streams(max_size=40))
def test_the_base_keeps_activity_only(stream: list[Event]) -> None:
    """Dropping removals and empty rows changes no pair and leaves nothing empty."""
    base = {page: as_base(rows) for page, rows in run_of(stream).items()}

    assert fold(stream).pairs == pairs(base)
    assert all(rows.values[0].all() and not rows.values[1].any() for rows in base.values())


def test_an_empty_batch_has_no_rows() -> None:
    """Nothing in, nothing out."""
    assert {} == run_of([])


@pytest.mark.parametrize(("day", "page"), [(-65, -2), (-64, -1), (-1, -1), (0, 0), (64, 1)])
def test_pages_round_down(day: int, page: int) -> None:
    """Days before 1970 lie in negative pages."""
    assert page == page_of(day)


@given(page=st.integers(-3, 3), first=st.integers(-300, 300), length=st.integers(0, 200))
def test_a_mask_of_days_has_exactly_their_bits(page: int, first: int, length: int) -> None:
    """The mask names the days of the range that lie in the page."""
    days = [day for day in range(first, first + length) if page_of(day) == page]

    assert days == days_of(page, int(days_mask(page, first, first + length - 1)))


@given(stream=event_streams(max_size=40), offset=st.integers(0, 2 * PAGE_DAYS))
def test_dropping_days_keeps_the_rest(stream: list[Event], offset: int) -> None:
    """Days before the limit go from both masks; rows without a day left go too."""
    first = min(event.day for event in stream) + offset
    dropped = {page: drop_before(page, rows, first) for page, rows in run_of(stream).items()}

    assert frozenset(pair for pair in fold(stream).pairs if pair[1] >= first) == pairs(dropped)
    assert all((rows.values[0] | rows.values[1]).all() for rows in dropped.values())


def test_the_digest_names_the_days_of_a_page() -> None:
    """It is the union of the add masks, 0 for no rows."""
    key = np.arange(2, dtype=np.uint64)
    masks = np.array([1, 6], dtype=np.uint64)

    assert 7 == MASKS.digest(Rows(key, (masks, np.zeros(2, dtype=np.uint64))))
    assert 0 == MASKS.digest(Rows(key[:0], (masks[:0], masks[:0])))
