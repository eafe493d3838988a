"""The one source of noise: OpenDP's exact integer samplers, fed by the operating system.

No seed reaches this module: OpenDP draws its bits from the operating system's generator, and its
samplers (Canonne, Kamath, Steinke 2020, Algorithms 1 to 3) are exact on rational scales, so no
floating-point number is ever added to a count.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dpdau.errors import InvalidPlanError, UnsupportedMechanismError

SCALE_MIN: Final = 0.05
SCALE_MAX: Final = 2.0**40
DRAWS_MAX: Final = 1_000_000
_MEASUREMENTS_MAX: Final = 256


class NoiseSource(Protocol):
    """Exact integer noise: one implementation in the product, recorded or zero ones in tests."""

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) independent draws with P(x) ∝ exp(-|x| / scale)."""

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) independent draws with P(x) ∝ exp(-x² / (2 scale²))."""


class OpenDPNoise:
    """OpenDP's `make_laplace` and `make_gaussian` over vectors of 64-bit zeros.

    The samplers treat the float `scale` as the exact rational number that it is. OpenDP is imported
    by the first draw; the measurement of each scale is built once. Safe to share between threads.

    Guarantee: draws are independent of each other, of every earlier draw and of every other
    process, and follow the exact law of the scale that was asked for.

    Source: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy",
    Algorithms 1 to 3, as implemented by OpenDP 0.16.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measurements: dict[tuple[str, float], Callable[[Sequence[int]], Sequence[int]]] = {}

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) independent draws with P(x) ∝ exp(-|x| / scale).

        Raises:
            InvalidPlanError: The scale is not in [`SCALE_MIN`, `SCALE_MAX`] or the size not in
                [0, `DRAWS_MAX`].
            UnsupportedMechanismError: OpenDP refused.
        """
        return self._draw("laplace", scale, size)

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) independent draws with P(x) ∝ exp(-x² / (2 scale²)).

        Raises:
            InvalidPlanError: The scale is not in [`SCALE_MIN`, `SCALE_MAX`] or the size not in
                [0, `DRAWS_MAX`].
            UnsupportedMechanismError: OpenDP refused.
        """
        return self._draw("gaussian", scale, size)

    def _draw(self, law: str, scale: float, size: int) -> NDArray[np.int64]:
        """Checks, then draws a vector; one caller at a time holds the foreign library."""
        check_scale(scale)
        if not 0 <= size <= DRAWS_MAX:
            raise InvalidPlanError(f"Expected 0..{DRAWS_MAX} draws, found {size}.")
        if size == 0:
            return np.zeros(0, dtype=np.int64)
        from opendp.mod import OpenDPException

        try:
            with self._lock:
                drawn = self._measurement(law, float(scale))([0] * size)
        except OpenDPException as error:
            raise UnsupportedMechanismError(
                f"Expected OpenDP to draw {law} noise of scale {scale}, found: {error}"
            ) from error
        noise = np.asarray(drawn)
        assert noise.dtype == np.int64 and noise.shape == (size,), "noise is 64-bit integers"
        return noise

    def _measurement(self, law: str, scale: float) -> Callable[[Sequence[int]], Sequence[int]]:
        """The measurement of one law and scale, built at most once while it is remembered."""
        found = self._measurements.get((law, scale))
        if found is None:
            if len(self._measurements) >= _MEASUREMENTS_MAX:
                self._measurements.clear()
            found = self._measurements[law, scale] = opendp_measurement(law, scale)
        return found


def opendp_measurement(law: str, scale: float) -> Any:
    """OpenDP's measurement that adds `law` noise to a vector of i64; its `map` gives the cost.

    Vectors of i64, because scalars cost a foreign call each and narrower integers saturate.
    """
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian, make_laplace
    from opendp.metrics import l1_distance, l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    domain = vector_domain(atom_domain(T="i64"))
    if law == "laplace":
        return make_laplace(domain, l1_distance(T="i64"), scale)
    assert law == "gaussian", "two laws are known"
    return make_gaussian(domain, l2_distance(T="i64"), scale)


def check_scale(scale: float) -> None:
    """Refuses a scale that is not a finite number in [`SCALE_MIN`, `SCALE_MAX`].

    Raises:
        InvalidPlanError: It is not.
    """
    if not (math.isfinite(scale) and SCALE_MIN <= scale <= SCALE_MAX):
        raise InvalidPlanError(
            f"Expected a noise scale in [{SCALE_MIN:g}, {SCALE_MAX:g}], found {scale}."
        )
