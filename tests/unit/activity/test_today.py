"""What events do to the live day: who leaves it, batch by batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity.today import live_turns
from dpdau.domain import day_number
from strategies import FIRST_DAY

LIVE = day_number(FIRST_DAY)

Row = tuple[int, bool, int]
"""(pseudonym, add, day)."""


def turns(batches: list[list[Row]], live: int | None = LIVE) -> tuple[list[int], list[int]]:
    """Who leaves the live day, and who does if they were active before."""
    rows = [(*row, number) for number, batch in enumerate(batches) for row in batch]
    who, add, day, number = (list(column) for column in zip(*rows, strict=True))
    found = live_turns(
        live,
        np.array(who, dtype=np.uint64),
        np.array(day, dtype=np.int32),
        np.array(add, dtype=np.bool_),
        np.array(number, dtype=np.intp),
    )
    return ([], []) if found is None else (found.left.tolist(), found.first_left.tolist())


def oracle(batches: list[list[Row]], active: set[int]) -> set[int]:
    """Who leaves, by sets: a user is out once active before a batch and not after it."""
    out: set[int] = set()
    for batch in batches:
        before = set(active)
        for who, add, day in batch:
            if day == LIVE:
                (active.add if add else active.discard)(who)
        out |= before - active
    return out


@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.integers(1, 3), st.booleans(), st.sampled_from([LIVE, LIVE, LIVE + 1])),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    active=st.sets(st.integers(1, 3)),
)
def test_leaving_equals_the_sets(batches: list[list[Row]], active: set[int]) -> None:
    """Over any batches, those who left and those who left if they were active are the oracle's."""
    left, first = turns(batches)

    assert sorted(set(left)) == left
    assert sorted(set(first)) == first
    assert oracle(batches, set(active)) == set(left) | (set(first) & active)


@pytest.mark.parametrize("live", [None, LIVE + 7])
def test_nobody_leaves_another_day(live: int | None) -> None:
    """Without a live day, or on other days, nothing is to be done."""
    assert ([], []) == turns([[(1, True, LIVE)], [(1, False, LIVE)]], live)
