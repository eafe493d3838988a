"""Counters that forget: what they make of a window."""

import numpy as np

from benchmarks.salted import inflation


def test_a_user_of_every_day_is_counted_every_day() -> None:
    """With a daily salt 30 days are 30 visitors; with a monthly one, one or two."""
    active = np.ones((1, 60), dtype=np.bool_)
    months = np.repeat([0, 1], 30)

    assert {"mau": 1, "daily_over_mau": 30.0, "monthly_over_mau": 1.97} == inflation(
        active, 30, months
    )


def test_users_of_one_day_are_counted_once() -> None:
    """Nobody is counted twice who comes once."""
    active = np.eye(30, dtype=np.bool_)

    assert {"mau": 30, "daily_over_mau": 1.0, "monthly_over_mau": 1.0} == inflation(
        active, 29, np.zeros(30, dtype=np.int64)
    )
