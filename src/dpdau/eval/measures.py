"""What is said about a series of estimates: its errors, its bias, and whether its intervals hold.

An error is estimate - exact, in users. A relative error is |error| / max(exact, 1): the count of a
day without users is taken as 1. Quantiles are linear between the two values next to them.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpdau.errors import InvalidPlanError

__all__ = ["Measures", "Share", "Spread", "measure", "step_change"]

RELATIVE_FLOOR = 1
"""The least count that an error is divided by, in users."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where a set of magnitudes lies."""

    median: float
    p90: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Spread":
        """The spread of at least one value.

        Raises:
            InvalidPlanError: There is no value.

        Example:
            >>> Spread.of([4, 1, 3, 2, 0])
            Spread(median=2.0, p90=3.6, p95=3.8, max=4.0)
        """
        found = np.asarray(values, dtype=np.float64)
        if not found.size:
            raise InvalidPlanError("Expected at least one value, found none.")
        return cls(*(float(np.quantile(found, share)) for share in (0.5, 0.9, 0.95, 1.0)))


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a number of days something held on."""

    held: int
    days: int

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.held / self.days

    @property
    def standard_error(self) -> float:
        """√(p (1 - p) / n), for days that are independent of each other.

        Correlated noise makes it too small; over several seeds the spread between them says more.

        Example:
            >>> round(Share(95, 100).standard_error, 4)
            0.0218
        """
        return math.sqrt(self.value * (1 - self.value) / self.days)


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything that is said about one method on one configuration.

    Shapes and units:
        absolute, bias, root_mean_square: users. relative: shares of the exact count.
        inside: the days on which the exact count lies in the stated 95 % interval.
    """

    absolute: Spread
    relative: Spread
    bias: float
    root_mean_square: float
    inside: Share

    def to_json(self) -> dict[str, Any]:
        """The figures under flat names, with the share and its standard error."""
        flat: dict[str, Any] = {
            f"{kind}_{name}": value
            for kind in ("absolute", "relative")
            for name, value in asdict(getattr(self, kind)).items()
        }
        return {
            **flat,
            "bias": self.bias,
            "root_mean_square": self.root_mean_square,
            "inside_share": self.inside.value,
            "inside_standard_error": self.inside.standard_error,
            "days": self.inside.days,
        }


def measure(exact: ArrayLike, estimates: ArrayLike, half_widths: ArrayLike) -> Measures:
    """The measures of the estimates of some days.

    Args:
        exact: (n,) exact counts, in users.
        estimates: (n,) estimates.
        half_widths: (n,) half widths of the stated intervals, both ends included.

    Raises:
        InvalidPlanError: The lengths differ or are 0.
    """
    truth, given, half = (
        np.asarray(values, dtype=np.float64) for values in (exact, estimates, half_widths)
    )
    if not truth.shape == given.shape == half.shape or truth.ndim != 1:
        raise InvalidPlanError(
            f"Expected one estimate and half width a day, found {truth.shape}, {given.shape} and "
            f"{half.shape}."
        )
    error = given - truth
    size: NDArray[np.float64] = np.abs(error)
    return Measures(
        absolute=Spread.of(size),
        relative=Spread.of(size / np.maximum(truth, RELATIVE_FLOOR)),
        bias=float(error.mean()),
        root_mean_square=float(np.sqrt(np.square(error).mean())),
        inside=Share(int((size <= half).sum()), truth.size),
    )


def step_change(series: ArrayLike, day: int) -> tuple[float, float]:
    """The values of a series on the day before a day, and on that day.

    Raises:
        InvalidPlanError: There is no such day or none before it.
    """
    values = np.asarray(series, dtype=np.float64)
    if not 1 <= day < values.size:
        raise InvalidPlanError(f"Expected a day of 1..{values.size - 1}, found {day}.")
    return float(values[day - 1]), float(values[day])
