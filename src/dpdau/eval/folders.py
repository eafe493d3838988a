"""Folders and files of results, which are their owner's alone, as all of `DATA_DIR` is."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["make_private"]


def make_private(folder: Path, files: Iterable[Path]) -> None:
    """Makes a folder with what is missing above it, 0700, and empty files in it, 0600.

    Raises:
        OSError: They cannot be made there.
    """
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o700, exist_ok=True)
    for path in files:
        path.touch(mode=0o600)
