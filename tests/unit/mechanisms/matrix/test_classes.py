"""Contribution classes: complete, without repetition, and of the known sizes."""

from functools import lru_cache
from itertools import product

import numpy as np
import pytest

from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import (
    ContributionClass,
    ToggleClass,
    toggle_bound,
    toggle_counts,
    toggled,
)

SMALL = [
    (horizon, windows, erasure)
    for horizon, windows in [
        (1, (2,)), (4, (3,)), (6, (2,)), (7, (4,)), (5, (9,)),
        (5, (2, 4)), (6, (2, 3)), (6, (3, 5)), (7, (2, 6)), (5, (3, 9)), (4, (2, 3, 5)),
    ]
    for erasure in (False, True)
]  # fmt: skip


@lru_cache(maxsize=64)
def caused(
    horizon: int, windows: tuple[int, ...], erasure: bool
) -> frozenset[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every (series, activity) that some activity before and within the horizon causes."""
    before = windows[-1] - 1
    found = set()
    for bits in product((0, 1), repeat=before + horizon):
        rows = [
            [int(any(bits[before + day - days + 1 : before + day + 1])) for days in windows]
            for day in range(horizon)
        ]
        for cut in range(1, horizon + 1) if erasure else [horizon]:
            kept = [value if day < cut else 0 for day, row in enumerate(rows) for value in row]
            seen = [bit if day < cut else 0 for day, bit in enumerate(bits[before:])]
            found.add((tuple(kept), tuple(seen)))
    return frozenset(found)


@pytest.mark.parametrize(("horizon", "windows", "erasure"), SMALL)
def test_small_classes_are_what_activity_causes(
    horizon: int, windows: tuple[int, ...], erasure: bool
) -> None:
    """The listed series are those of all activity patterns: none missing, none more, in order."""
    listed = [
        tuple(row) for row in ContributionClass(horizon, windows, erasure=erasure).series().tolist()
    ]
    assert sorted({series for series, _ in caused(horizon, windows, erasure)}) == listed


@pytest.mark.parametrize(("horizon", "windows", "erasure"), SMALL)
def test_small_classes_know_the_activity_behind_a_series(
    horizon: int, windows: tuple[int, ...], erasure: bool
) -> None:
    """Possible activity is exactly what causes the series, and lies within its range."""
    part = ContributionClass(horizon, windows, daily=True, erasure=erasure)
    truth = caused(horizon, windows, erasure)
    activity = np.array(list(product((0, 1), repeat=horizon)), dtype=np.uint8)
    for series in part.series():
        rows = np.tile(series, (len(activity), 1))
        idle, active = part.activity_range(rows[:1])
        for bits, possible in zip(activity, part.possible(rows, activity), strict=True):
            real = (tuple(series.tolist()), tuple(bits.tolist())) in truth
            assert real == possible
            assert not real or np.where(bits, active[0], idle[0]).all()


@pytest.mark.parametrize(
    ("horizon", "windows", "erasure", "size"),
    [
        (28, (28,), False, 407), (28, (30,), False, 407), (28, (7,), False, 21_803),
        (29, (28,), False, 436), (29, (30,), False, 436), (29, (7,), False, 30_121),
        (30, (28,), False, 467), (30, (30,), False, 466), (30, (7,), False, 41_535),
        (31, (28,), False, 502), (31, (30,), False, 497), (31, (7,), False, 57_210),
        (31, (28,), True, 4_993), (31, (30,), True, 4_992), (31, (7,), True, 150_294),
        (31, (7, 30), False, 114_383), (31, (7, 30), True, 414_358),
        (31, (7, 28), False, 114_359), (28, (7, 30), True, 156_804),
    ],
)  # fmt: skip
def test_sizes_of_a_month(horizon: int, windows: tuple[int, ...], erasure: bool, size: int) -> None:
    """The classes of calendar months have the known numbers of members, each once."""
    series = ContributionClass(horizon, windows, erasure=erasure).series()
    assert (size, horizon * len(windows)) == series.shape
    assert size == len({row.tobytes() for row in np.packbits(series, axis=1)})
    assert not series[0].any()


@pytest.mark.parametrize("horizon", range(1, 10))
@pytest.mark.parametrize("window", range(1, 7))
def test_toggle_bound_is_attained_and_never_passed(horizon: int, window: int) -> None:
    """The formula is the largest number of toggles over all activity patterns."""
    most = max(
        sum(one != other for one, other in zip((0, *series), series, strict=False))
        for series in {
            tuple(int(any(bits[day : day + window])) for day in range(horizon))
            for bits in product((0, 1), repeat=horizon + window - 1)
        }
    )
    assert most == toggle_bound(horizon, window)


@pytest.mark.parametrize("horizon", [28, 29, 30, 31])
@pytest.mark.parametrize("window", [7, 28, 30])
def test_toggle_bound_holds_for_months(horizon: int, window: int) -> None:
    """The formula gives the largest number of toggles of the listed class."""
    counts = toggle_counts(ContributionClass(horizon, (window,), erasure=False).series())
    assert int(counts.max()) == toggle_bound(horizon, window)


def test_toggle_bound_over_long_horizons() -> None:
    """A quarter and a year have the known bounds."""
    found = {(days, window): toggle_bound(days, window) for days in (90, 365) for window in (7, 30)}
    assert {(90, 7): 24, (90, 30): 7, (365, 7): 93, (365, 30): 25} == found


@pytest.mark.parametrize(("horizon", "toggles"), [(1, 1), (4, 2), (6, 3), (7, 4), (6, 6)])
def test_toggle_class_is_every_series_of_few_changes(horizon: int, toggles: int) -> None:
    """The members are all 0/1 series with at most so many changes, each once."""
    part = ToggleClass(horizon, toggles)
    rows = np.array(list(product((0, 1), repeat=horizon)), dtype=np.uint8)
    expected = {tuple(row) for row in rows[toggle_counts(rows) <= toggles].tolist()}
    listed = [tuple(row) for row in part.series().tolist()]
    assert expected == set(listed)
    assert len(listed) == len(expected) == part.size()


@pytest.mark.parametrize("toggles", [1, 2, 3, 4])
@pytest.mark.parametrize("horizon", [4, 6, 9])
def test_worst_toggles_are_found(horizon: int, toggles: int) -> None:
    """The search agrees with the maximum over the list, in floats and in integers alike."""
    generator = np.random.default_rng(horizon * 10 + toggles)
    root = generator.integers(-50, 50, (horizon, horizon))
    gram = root.T @ root
    series = ToggleClass(horizon, toggles).series().astype(np.int64)
    forms = ((series @ gram) * series).sum(axis=1)
    first = np.where(series.any(axis=1), series.argmax(axis=1), -1)
    values, places = ToggleClass(horizon, toggles).worst(gram)
    assert [int(forms[first == day].max()) for day in range(horizon)] == values.tolist()
    found = toggled(places, horizon).astype(np.int64)
    assert ((found @ gram) * found).sum(axis=1).tolist() == values.tolist()
    floats, _ = ToggleClass(horizon, toggles).worst(gram.astype(np.float64))
    assert np.allclose(floats, values)


def test_toggled_series() -> None:
    """A toggle flips everything after it; one at the horizon never comes."""
    assert [[0, 1, 1, 0]] == toggled(np.array([[1, 3]]), 4).tolist()
    assert [[0, 0, 1, 1]] == toggled(np.array([[2, 4]]), 4).tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"horizon": 0, "windows": (7,)},
        {"horizon": 31, "windows": ()},
        {"horizon": 31, "windows": (30, 7)},
        {"horizon": 31, "windows": (7, 7)},
        {"horizon": 31, "windows": (0,)},
        {"horizon": 31, "windows": (65,)},
        {"horizon": 31, "windows": (1, 7), "daily": True},
        {"horizon": 60, "windows": (7, 30)},
    ],
)
def test_impossible_classes_are_refused(arguments: dict[str, object]) -> None:
    """A class that is not one, or too long to number, is refused."""
    with pytest.raises(InvalidPlanError):
        ContributionClass(**arguments)  # type: ignore[arg-type]


def test_classes_too_large_to_list_are_refused() -> None:
    """The daily series of a month has 2³¹ members, and is never listed."""
    with pytest.raises(InvalidPlanError, match="at most"):
        ContributionClass(31, (1,), erasure=False).series()
    with pytest.raises(InvalidPlanError, match="at most"):
        ToggleClass(365, 4).series()


def test_impossible_toggle_classes_are_refused() -> None:
    """Horizons and caps out of range are refused, and so are searches of more than four toggles."""
    for horizon, toggles in [(0, 1), (2_000, 1), (5, 0), (5, 6)]:
        with pytest.raises(InvalidPlanError):
            ToggleClass(horizon, toggles)
    with pytest.raises(InvalidPlanError):
        ToggleClass(9, 5).worst(np.eye(9))
    with pytest.raises(InvalidPlanError):
        toggle_bound(0, 7)


def test_a_cut_series_may_hide_how_its_run_ended() -> None:
    """Erasure could have ended a run that nothing follows, but not one that a longer window saw."""
    for windows, free in [((3,), True), ((3, 5), False)]:
        part = ContributionClass(6, windows, daily=True)
        run = [0, 1, 1, 1, 1, 0]
        longer = [[0, 1, 1, 1, 1, 1]] * (len(windows) - 1)
        series = np.array([run, *longer], dtype=np.uint8).T.reshape(1, -1)
        idle, active = part.activity_range(series)
        assert active[0, 3:5].all() == free
        assert idle[0, 2] == free
