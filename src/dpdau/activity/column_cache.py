"""Keeps what was read and checked, up to a bound on memory."""

import threading
from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

from dpdau.activity.runs import is_constant

Place = tuple[tuple[str, ...], int, str]
"""(file names, group, what was read of them)."""


class ColumnCache:
    """Least recently used columns go first; safe to use from several threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._columns: OrderedDict[Place, tuple[NDArray[Any], ...]] = OrderedDict()
        self._bytes = 0

    def get(self, place: Place) -> tuple[NDArray[Any], ...] | None:
        """What is kept for a place, or None."""
        with self._lock:
            found = self._columns.get(place)
            if found is not None:
                self._columns.move_to_end(place)
            return found

    def put(self, place: Place, columns: tuple[NDArray[Any], ...]) -> None:
        """Keeps columns, unless they are too large; nobody may change them afterwards."""
        size = _size(columns)
        with self._lock:
            if place in self._columns or size > self._bytes_max:
                return
            self._columns[place] = columns
            self._bytes += size
            while self._bytes > self._bytes_max:
                _place, dropped = self._columns.popitem(last=False)
                self._bytes -= _size(dropped)

    def drop(self, names: set[str]) -> None:
        """Frees everything that was read of some files."""
        with self._lock:
            for place in [one for one in self._columns if not names.isdisjoint(one[0])]:
                self._bytes -= _size(self._columns.pop(place))


def _size(columns: tuple[NDArray[Any], ...]) -> int:
    """The bytes that columns hold; a constant one holds none."""
    return sum(column.nbytes for column in columns if not is_constant(column))
