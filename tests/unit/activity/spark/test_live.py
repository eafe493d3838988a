"""A lake says that it is not counted live."""

import datetime as dt
from collections.abc import Callable

import pytest

from dpdau.activity.spark.live import NoLiveDays
from dpdau.activity.store import LiveStore
from dpdau.errors import InvalidPlanError

DAY = dt.date(2026, 2, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda live: live.open("2026-02"),
        lambda live: live.begin(DAY),
        lambda live: live.advance("2026-02", 1),
        lambda live: live.count(DAY),
        lambda live: live.put_secret("2026-02", b"secret"),
    ],
)
def test_what_a_lake_does_not_do_is_refused(call: Callable[[LiveStore], object]) -> None:
    """Each verb that would begin or count a live day is refused with the reason."""
    with pytest.raises(InvalidPlanError, match="lake"):
        call(NoLiveDays())


def test_nothing_is_kept_live() -> None:
    """What is asked of a month that was never opened is answered as for any store."""
    live: LiveStore = NoLiveDays()

    assert (None, None) == (live.step("2026-02"), live.secret("2026-02"))
    live.end(DAY)
