"""Counts are bounded: one user moves one by at most 1, whatever its events."""

import datetime as dt
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpdau import aggregates
from dpdau.activity.embedded import EmbeddedStore
from dpdau.app import App
from dpdau.domain import GROWTH, ContributionBounds, Metric, Segment, Unit, Window
from dpdau.errors import InvalidPlanError
from products import DAY, event, product, send

STREAMS = st.lists(
    st.tuples(st.sampled_from("+-"), st.integers(0, 70), st.sampled_from(["ios", "web", None])),
    max_size=25,
)


def test_the_bounds_are_those_of_distinct_users() -> None:
    """The declared bounds are 1 for each count and 1 step."""
    assert ContributionBounds(1, 1) == aggregates.DISTINCT_USERS


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A product with five users, each active on another day."""
    with product(tmp_path_factory.mktemp("crowd"), DIMENSIONS=["platform"]) as app:
        send(app, [event(f"other-{back}", DAY - dt.timedelta(days=back)) for back in range(5)])
        yield app


@given(stream=STREAMS, window_days=st.integers(1, 64), segment=st.sampled_from([None, "ios"]))
@settings(max_examples=40)
def test_one_user_moves_a_count_by_at_most_one(
    crowded: App, stream: list[tuple[str, int, str | None]], window_days: int, segment: str | None
) -> None:
    """Sensitivity 1, exactly: the same store with and without one user's entire history."""
    window = Window(DAY, window_days)
    part = None if segment is None else Segment("platform", segment)
    mine = [
        event(
            "me", DAY - dt.timedelta(days=back), op, metadata={"platform": label} if label else {}
        )
        for op, back, label in stream
    ]
    without = aggregates.distinct_users(crowded._store, window, part)
    send(crowded, mine)
    with_me = aggregates.distinct_users(crowded._store, window, part)
    crowded.erase("me")

    assert (Unit.USER, aggregates.DISTINCT_USERS) == (with_me.unit, with_me.bounds)
    assert with_me.value - without.value in {0, 1}
    assert without == aggregates.distinct_users(crowded._store, window, part)


def cells_of_one_user(app: App, window: Window, back: tuple[int, ...]) -> list[int]:
    """What one user who was active on some days before a window's end adds to the four cells."""
    without = aggregates.growth_cells(app._store, window)
    send(app, [event("me", window.end - dt.timedelta(days=days)) for days in back])
    with_me = aggregates.growth_cells(app._store, window)
    app.erase("me")
    assert without == aggregates.growth_cells(app._store, window)
    return [with_me[figure].value - without[figure].value for figure in GROWTH]


def one_user_is_in_one_cell_at_most(app: App) -> None:
    """Every pattern of a short history, exactly: the four cells move by a unit vector or by 0.

    Windows of 2 days: the patterns are all subsets of two days before both windows, of the days of
    both, and of one day after them.
    """
    window = Window(DAY, 2)
    for size in range(8):
        for back in itertools.combinations((-1, 0, 1, 2, 3, 4, 70), size):
            now, then, before = (bool(set(back) & set(days)) for days in ((0, 1), (2, 3), (4, 70)))
            expected = [
                now and not then and not before,
                now and then,
                now and not then and before,
                then and not now,
            ]
            moved = cells_of_one_user(app, window, back)
            assert sum(map(abs, moved)) <= 1, f"days {back} move the cells by {moved}"
            assert expected == moved


def test_one_user_is_in_one_cell_of_growth_at_most(crowded: App) -> None:
    """Sensitivity 1 of the vector, in L1 and so in L2, and the declared bounds say so."""
    one_user_is_in_one_cell_at_most(crowded)

    bounds = {
        one.bounds for one in aggregates.growth_cells(crowded._store, Window(DAY, 2)).values()
    }
    assert {ContributionBounds(max_per_count=1, max_active_steps=1)} == bounds


@pytest.mark.parametrize("cell", range(4))
def test_a_user_in_two_cells_sets_off_the_check(
    crowded: App, monkeypatch: pytest.MonkeyPatch, cell: int
) -> None:
    """Planted bug: whoever is retained is counted once more elsewhere, and the check fails."""
    counted = EmbeddedStore.growth

    def twice(store: EmbeddedStore, end: dt.date, *, window_days: int) -> NDArray[np.int64]:
        cells = counted(store, end, window_days=window_days)
        cells[cell] += cells[1]
        return cells

    monkeypatch.setattr(EmbeddedStore, "growth", twice)
    with pytest.raises(AssertionError):
        one_user_is_in_one_cell_at_most(crowded)


def test_a_release_refuses_bounds_that_its_noise_does_not_cover(
    tmp_path: Path, monkeypatch
) -> None:
    """A count with wider bounds than the mechanism's sensitivity is refused, not charged."""
    monkeypatch.setattr(aggregates, "DISTINCT_USERS", ContributionBounds(2, 1))
    with product(tmp_path) as app:
        with pytest.raises(InvalidPlanError):
            app.release(Metric.DAU, DAY)
        assert 0 == app.budget("dau", DAY).release_count
