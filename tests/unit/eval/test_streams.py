"""Months of activity: who is active when, who asks to be removed, and what comes afterwards."""

import datetime as dt

import numpy as np
import pytest

from dpdau.domain import day_number
from dpdau.errors import InvalidSettingError
from dpdau.eval.streams import Kind, MonthStream, Pattern, Removal, data_set, remove, synthetic
from dpdau.eval.workloads import generate

FIRST = dt.date(2026, 4, 1)
PLAIN = synthetic(2_000, FIRST, seed=3)
MIDDLE = 15


def pairs(stream: MonthStream) -> set[tuple[str, dt.date]]:
    """The (user, day) pairs of all arrivals."""
    batches = [stream.arrivals(day) for day in range(stream.days)]
    return {(row["user_id"], row["day"]) for batch in batches for row in batch.to_pylist()}


def active_days(stream: MonthStream) -> dict[str, int]:
    """How many days of the month each user was active."""
    counts = np.bincount(stream.user[stream.day >= 0], minlength=len(stream.user_ids))
    return dict(zip(stream.user_ids.to_pylist(), counts.tolist(), strict=True))


def test_arrivals_are_the_generated_rows() -> None:
    """Each day brings the `+` rows about it, and the month brings all that were generated."""
    generated = {
        (row["user_id"], row["day"])
        for batch in generate(2_000, 30, FIRST, seed=3)
        for row in batch.to_pylist()
    }
    fourth = PLAIN.arrivals(3).to_pydict()

    assert generated == pairs(PLAIN)
    assert {dt.date(2026, 4, 4)} == set(fourth["day"])
    assert {"+"} == set(fourth["op"])


def test_the_share_is_of_the_users_of_the_month() -> None:
    """20 % of the users who were active ask; each of them once."""
    removed = remove(PLAIN, Removal(0.2), seed=1).removed
    asking = np.concatenate(removed)

    assert round(0.2 * len(PLAIN.user_ids)) == asking.size == np.unique(asking).size


def test_random_removals_come_on_many_days_and_are_for_good() -> None:
    """No user has a row after the day on which it asked."""
    stream = remove(PLAIN, Removal(0.2), seed=1)
    when = {user: day for day, users in enumerate(stream.removed) for user in users.tolist()}

    assert len(set(when.values())) > 20
    assert all(
        day <= when.get(user, 30)
        for user, day in zip(stream.user.tolist(), stream.day.tolist(), strict=True)
    )


def test_adversarial_removals_take_the_most_active_on_one_day() -> None:
    """All ask in the middle of the month, and nobody else was more active than any of them."""
    stream = remove(PLAIN, Removal(0.1, Pattern.ADVERSARIAL), seed=1)
    days = active_days(PLAIN)
    asked = set(stream.names(MIDDLE))

    assert [MIDDLE] == [day for day in range(30) if stream.removed[day].size]
    assert min(days[name] for name in asked) >= max(
        count for name, count in days.items() if name not in asked
    )


def test_every_tenth_adversary_comes_back() -> None:
    """One in ten of the removed users keeps the rows after the removal."""
    stream = remove(PLAIN, Removal(0.1, Pattern.ADVERSARIAL), seed=1)
    asking = set(stream.removed[MIDDLE].tolist())
    later = set(stream.user[stream.day > MIDDLE].tolist()) & asking

    assert -(-len(asking) // 10) == len(later)


def test_retractions_are_all_days_so_far() -> None:
    """Who asks gets a `-` for each of the days up to that one, and nobody else any."""
    stream = remove(PLAIN, Removal(0.1, Pattern.ADVERSARIAL, Kind.RETRACT), seed=1)
    asked, last = set(stream.names(MIDDLE)), FIRST + dt.timedelta(days=MIDDLE)
    rows = stream.retractions(MIDDLE).to_pylist()

    assert {(name, day) for name, day in pairs(PLAIN) if name in asked and day <= last} == {
        (row["user_id"], row["day"]) for row in rows
    }
    assert {"-"} == {row["op"] for row in rows}
    assert 0 == stream.retractions(MIDDLE - 1).num_rows


def test_a_stream_is_repeatable_by_its_seed() -> None:
    """The same seed gives the same removals, another one others."""
    first, again, other = (remove(PLAIN, Removal(0.1), seed=seed) for seed in (1, 1, 2))

    assert pairs(first) == pairs(again) != pairs(other)


def test_a_real_month_starts_with_its_history() -> None:
    """The first day of CDNOW's April brings the purchases of January to March with it."""
    stream = data_set("cdnow")
    first = stream.arrivals(0).column("day").to_pylist()

    assert (dt.date(1997, 4, 1), 30) == (stream.first, stream.days)
    assert (dt.date(1997, 1, 1), dt.date(1997, 4, 1)) == (min(first), max(first))
    assert stream.day.max() == day_number(dt.date(1997, 4, 30)) - day_number(stream.first)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    """Shares outside 0..1 are refused."""
    with pytest.raises(InvalidSettingError):
        Removal(share)


def test_a_removal_has_a_short_name() -> None:
    """Tables and legends call a removal by its share, pattern and kind."""
    assert "none" == Removal(0.0).label
    assert "20% adversarial retract" == Removal(0.2, Pattern.ADVERSARIAL, Kind.RETRACT).label
