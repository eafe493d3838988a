"""Noise sources for tests: none at all, a recording, and the product's own drawn in bulk."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dpdau.mechanisms.sampling import NoiseSource


class ZeroNoise:
    """No noise: what is left is the exact count, for layer-1 sensitivity checks."""

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) zeros."""
        return np.zeros(size, dtype=np.int64)

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """(size,) zeros."""
        return np.zeros(size, dtype=np.int64)


class RecordedNoise:
    """Hands out recorded integers in order and remembers which laws were asked for."""

    def __init__(self, draws: Iterable[int]) -> None:
        self._draws = iter(draws)
        self.asked: list[tuple[str, float, int]] = []

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """The next `size` recorded integers."""
        return self._next("laplace", scale, size)

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """The next `size` recorded integers."""
        return self._next("gaussian", scale, size)

    def _next(self, law: str, scale: float, size: int) -> NDArray[np.int64]:
        self.asked.append((law, scale, size))
        return np.array([next(self._draws) for _ in range(size)], dtype=np.int64)


class BulkNoise:
    """Draws a large vector from another source once, then hands it out draw by draw, each once."""

    def __init__(self, source: NoiseSource, bulk: int) -> None:
        self._source = source
        self._bulk = bulk
        self._stock: dict[tuple[str, float], list[int]] = {}

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """The next `size` draws of this law."""
        return self._take("discrete_laplace", scale, size)

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """The next `size` draws of this law."""
        return self._take("discrete_gaussian", scale, size)

    def _take(self, law: str, scale: float, size: int) -> NDArray[np.int64]:
        stock = self._stock.setdefault((law, scale), [])
        if len(stock) < size:
            stock.extend(getattr(self._source, law)(scale, max(size, self._bulk)).tolist())
        taken = stock[:size]
        del stock[:size]
        return np.array(taken)
