"""Copies of a store: taken while it is written, and made ready to be written again."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dpdau.activity.access import MANIFEST, SEGMENTS
from dpdau.activity.lake_table import LakeTable
from dpdau.activity.made import mark_made
from dpdau.errors import StoreCorruptError, StoreUnavailableError

_ATTEMPTS: Final = 10
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_BUSY_SECONDS: Final = 15.0

Moved = Callable[[int, int], None]
"""(bytes that are copied, bytes in all) → shown to somebody."""


def copy_store(source: Path, target: Path, *, moved: Moved = lambda _done, _all: None) -> None:
    """Copies a store that others may read and write meanwhile.

    Args:
        source: The folder of the store.
        target: A folder that is not there.
        moved: Hears how far it is.

    Guarantee:
        The copy is one committed state of the store, with its files and nothing else: what was
        taken out before, and what is not yet committed, is not in it. Files are never changed, so
        the state of the manifest is the state; where a merge takes a file away before it is
        copied, a newer state is taken.

    Raises:
        InvalidSettingError: Its data lies in a lake, which the tools of its storage copy.
        StoreCorruptError: A file of the store is gone.
        StoreUnavailableError: It cannot be read or written, or files were replaced too often.
    """
    missed: set[str] = set()
    try:
        for folder in (target, target / SEGMENTS):
            folder.mkdir(mode=_FOLDER_MODE)
        for _ in range(_ATTEMPTS):
            sizes = _copy_manifest(source / MANIFEST, target / MANIFEST)
            gone = _copy_files(source / SEGMENTS, target / SEGMENTS, sizes, moved)
            if gone is None:
                mark_made(target)
                return
            if gone in missed:
                raise StoreCorruptError(f"Expected the file {gone}, found none.", file=gone)
            missed.add(gone)
    except OSError as error:
        raise StoreUnavailableError(f"Expected to copy the store, found: {error}.") from error
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"Expected to copy the manifest, found: {error}.") from error
    raise StoreUnavailableError(
        "Expected to copy the store while another process merges, found files replaced too often."
    )


def make_writable(root: Path) -> None:
    """Makes a copy a store again: private, and its manifest takes readers beside a writer.

    Raises:
        StoreUnavailableError: It cannot be written.
    """
    try:
        # What carried the copy here may have opened it to others.
        for path in (root, *root.rglob("*")):
            path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        with contextlib.closing(sqlite3.connect(root / MANIFEST, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailableError(f"Expected to write {root}, found: {error}.") from error


def _copy_manifest(source: Path, target: Path) -> dict[str, int]:
    """Copies the manifest as it is now; returns the size of each file that it names."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE))
    address = f"{source.resolve().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as good,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as made,
    ):
        good.backup(made)
        LakeTable(made).check(None)
        # In one file, so that whoever reads the copy leaves nothing beside it.
        made.execute("PRAGMA journal_mode = DELETE")
        return dict(made.execute("SELECT name, size FROM segments ORDER BY name"))


def _copy_files(source: Path, target: Path, sizes: dict[str, int], moved: Moved) -> str | None:
    """Makes a folder hold the named files and no other; returns one that is gone, or None."""
    for stale in {one.name for one in target.iterdir()} - sizes.keys():
        (target / stale).unlink()
    total, done = sum(sizes.values()), 0
    for name, size in sizes.items():
        if not (target / name).exists():
            try:
                shutil.copyfile(source / name, target / name)
            except FileNotFoundError:
                (target / name).unlink(missing_ok=True)
                return name
            (target / name).chmod(_FILE_MODE)
        done += size
        moved(done, total)
    return None
