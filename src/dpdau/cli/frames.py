"""Keeps the array library from loading the library of data frames, which one command needs."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Final

_NAME: Final = "pandas"


class _Hidden(MetaPathFinder):
    """Finds no data frames."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Raises for the one name; others are left to the next finder."""
        if fullname == _NAME:
            raise ModuleNotFoundError(f"{_NAME} is not loaded by a command", name=_NAME)


def hide_data_frames() -> None:
    """Has pyarrow go without pandas where it is installed.

    It would load it at its first conversion, which takes half a second and 60 MB.
    """
    sys.meta_path.insert(0, _Hidden())


def show_data_frames() -> None:
    """Takes that back, for a library that is built on them."""
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Hidden)]
