"""Counts are bounded: one user moves one by at most 1, whatever its events."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau import aggregates
from dpdau.app import App
from dpdau.domain import ContributionBounds, Metric, Segment, Unit, Window
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


def test_a_release_refuses_bounds_that_its_noise_does_not_cover(
    tmp_path: Path, monkeypatch
) -> None:
    """A count with wider bounds than the mechanism's sensitivity is refused, not charged."""
    monkeypatch.setattr(aggregates, "DISTINCT_USERS", ContributionBounds(2, 1))
    with product(tmp_path) as app:
        with pytest.raises(InvalidPlanError):
            app.release(Metric.DAU, DAY)
        assert 0 == app.budget("dau", DAY).release_count
