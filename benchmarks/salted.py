"""What counters that forget their visitors make of a month, beside the true count of users.

A counter with a new salt every day cannot tell that two days had the same visitor, so its count of
30 days is the sum of them; one with a new salt every calendar month counts those twice who are in a
window on both sides of the month's end. There is no noise and no product in it: only definitions.
"""

import datetime as dt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import workload
from dpdau.eval.streams import DATA_SETS, data_set

SIZE: Final = "S"


def measure() -> dict[str, Any]:
    """The ratios for the synthetic workload and for two real logs, each over one month."""
    active = workload.active_days(workload.generate(SIZE), netted=False)
    months = _months(workload.FIRST_DAY, active.shape[1])
    found: dict[str, Any] = {
        "benchmark workload": inflation(active, workload.FIRST_RELEASED, months)
    }
    for name in DATA_SETS:
        stream = data_set(name)
        history = int(-stream.day.min())
        matrix = np.zeros((len(stream.user_ids), history + stream.days), dtype=np.bool_)
        matrix[stream.user, stream.day + history] = True
        begins = stream.first - dt.timedelta(history)
        name = f"{name}, {stream.first:%B %Y}"
        found[name] = inflation(matrix, history, _months(begins, matrix.shape[1]))
    return found


def inflation(
    active: NDArray[np.bool_], first: int, months: NDArray[np.int64]
) -> dict[str, int | float]:
    """Counts of forgetful counters over the true MAU, the mean of the days from `first` on.

    Args:
        active: (users, days).
        first: The place of the first day that counts.
        months: (days,) a number for the calendar month of each day.
    """
    daily, monthly, true = [], [], []
    for last in range(first, active.shape[1]):
        days = slice(max(last - workload.WINDOW_DAYS + 1, 0), last + 1)
        window = active[:, days]
        true.append(int(window.any(axis=1).sum()))
        daily.append(int(window.sum()))
        monthly.append(
            sum(
                int(window[:, months[days] == month].any(axis=1).sum())
                for month in np.unique(months[days])
            )
        )
    return {
        "mau": true[-1],
        "daily_over_mau": round(float((np.array(daily) / true).mean()), 2),
        "monthly_over_mau": round(float((np.array(monthly) / true).mean()), 2),
    }


def _months(first: dt.date, days: int) -> NDArray[np.int64]:
    calendar = [first + dt.timedelta(place) for place in range(days)]
    return np.array([12 * day.year + day.month for day in calendar])
