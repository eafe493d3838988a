"""The doors of a store with a manifest: who may write, who may look, what a failure is called."""

import contextlib
import secrets
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Generic, TypeVar

from dpdau.activity.lake_table import LakeFolder
from dpdau.activity.made import mark_made, was_made
from dpdau.activity.manifest import Manifest
from dpdau.activity.sealing import Sealer
from dpdau.activity.writer_lock import WriterLock
from dpdau.errors import (
    InvalidPlanError,
    InvalidSettingError,
    StoreCorruptError,
    StoreUnavailableError,
)

MANIFEST: Final = "manifest.sqlite"
SECRET_BYTES_MAX: Final = 1 << 20
"""The longest secret of a month."""
_FOLDER_MODE: Final = 0o700
_BODY: Final = "body"
_LAKE_BYTES: Final = 12

Writer = TypeVar("Writer")
"""What changes the data of a store, beside its manifest."""


class Doors(ABC, Generic[Writer]):
    """One writer at a time, any number of readers, all errors the store's own.

    Args:
        root: The folder of the manifest; made with mode 0700 when missing.
        sealer: Seals what of the manifest is secret.
        read_only: Never write; the store must exist.
        lock_wait_seconds: How long a writer waits for another one.
        lake: The lake that holds the data, or None where the folder holds it.
    """

    def __init__(
        self,
        root: Path,
        *,
        sealer: Sealer,
        read_only: bool,
        lock_wait_seconds: float,
        lake: LakeFolder | None = None,
    ) -> None:
        self._root = root
        self._read_only = read_only
        self._sealer: Final = sealer
        self._lock_wait_seconds = lock_wait_seconds
        self._lake = lake
        self._path = root / MANIFEST
        self._lock = threading.RLock()
        self._replaces = threading.Lock()
        self._lookup_lock = threading.Lock()
        self._writer: tuple[Manifest, Writer] | None = None
        self._writer_lock = WriterLock(root / "writer.lock")
        self._closed = False
        with translated():
            if not read_only:
                self._prepare()
            elif not Manifest.exists(self._path):
                raise StoreUnavailableError(f"Expected an activity store in {root}, found none.")
            self._lookups = self._manifest(read_only=True)

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether a store was made in a folder, be its manifest there or lost."""
        return was_made(root) or Manifest.exists(root / MANIFEST)

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Manifest, Writer]]:
        """The writing side, for one call at a time, to add to what is there."""
        with self._lock, translated():
            self._check_open()
            if self._read_only:
                raise StoreUnavailableError("Expected a store to write, found it read-only.")
            yield self._acquire()

    @contextlib.contextmanager
    def rewriting(self) -> Iterator[tuple[Manifest, Writer]]:
        """The writing side, to replace what is there as well; nothing is folded meanwhile."""
        with self._replaces, self.writing() as both:
            yield both

    @contextlib.contextmanager
    def folding(self) -> Iterator[Writer]:
        """What folds and merges, for one call at a time; it takes its turns to write by itself.

        Others may add meanwhile, and nobody else replaces or deletes a file.
        """
        with self._replaces, translated():
            with self.writing() as (_manifest, writer):
                pass
            yield writer

    @contextlib.contextmanager
    def folding_unless_busy(self) -> Iterator[bool]:
        """The right to fold within `writing`; False where another thread has it."""
        # Not waited for: who folds waits for the turn to write, which the caller has.
        if not self._replaces.acquire(blocking=False):
            yield False
            return
        try:
            yield True
        finally:
            self._replaces.release()

    @contextlib.contextmanager
    def unless_busy(self, wait_seconds: float) -> Iterator[bool]:
        """Keeps the writing side for the calls inside; False, and nothing, where it would wait."""
        if not self._lock.acquire(timeout=wait_seconds):
            yield False
            return
        try:
            yield self._writer is not None
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def looking(self) -> Iterator[Manifest]:
        """A read-only view of the manifest, for one call at a time."""
        with self._lookup_lock, translated():
            self._check_open()
            with self._lookups.reading():
                yield self._lookups

    def seal_secret(self, name: str, body: bytes) -> bytes:
        """A secret as it is stored under a name.

        Raises:
            InvalidPlanError: It is empty or too long.
        """
        if not 0 < len(body) <= SECRET_BYTES_MAX:
            raise InvalidPlanError(
                f"Expected a secret of 1..{SECRET_BYTES_MAX} bytes, found {len(body)}."
            )
        return self._sealer.for_file(name).seal(body, _BODY)

    def open_secret(self, name: str, stored: bytes) -> bytes:
        """The inverse of `seal_secret`."""
        return bytes(self._sealer.for_file(name).open(stored, _BODY))

    def close(self) -> None:
        """Releases files and the writer's lock; may be called twice."""
        with self._replaces, self._lock:
            if self._closed:
                return
            self._closed = True
            self._lookups.close()
            self._close_views()
            self._release()

    @abstractmethod
    def _make_writer(self, manifest: Manifest) -> Writer:
        """What changes the data, over the writing side of the manifest."""

    @abstractmethod
    def _recover(self, manifest: Manifest) -> None:
        """Ends what a crash cut short; the caller holds the writer's lock."""

    @abstractmethod
    def _has_data(self) -> bool:
        """Whether there are files that only a manifest can have named."""

    @abstractmethod
    def _close_views(self) -> None:
        """Releases what is read."""

    def _manifest(self, *, read_only: bool) -> Manifest:
        """A further connection to the manifest.

        Raises:
            InvalidSettingError: Its data lies elsewhere.
        """
        manifest = Manifest(self._path, self._sealer, read_only=read_only)
        try:
            manifest.lake.check(None if self._lake is None else self._lake.id)
        except BaseException:
            manifest.close()
            raise
        return manifest

    def _prepare(self) -> None:
        """Makes a missing store and deletes what a crash left, where nobody else is writing."""
        self._root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        missing = not self._is_complete()
        if not self._writer_lock.take(self._lock_wait_seconds if missing else 0.0):
            if missing and not self._is_complete():
                raise self._busy()
            return
        try:
            if not Manifest.exists(self._path):
                self._refuse_a_lost_manifest()
                self._make_manifest()
            elif self._lake is not None and not was_made(self._root):
                self._claim(self._lake)
            with contextlib.closing(self._manifest(read_only=False)) as manifest:
                mark_made(self._root)
                self._recover(manifest)
        finally:
            self._release()

    def _is_complete(self) -> bool:
        """Whether the store is made, with a lake that is its own."""
        return Manifest.exists(self._path) and (self._lake is None or was_made(self._root))

    def _make_manifest(self) -> None:
        """An empty manifest; then the lake is its own, or the manifest is not kept.

        Raises:
            InvalidSettingError: The lake is another one's.
        """
        if self._lake is None:
            Manifest.create(self._path, self._sealer)
            return
        lake = secrets.token_hex(_LAKE_BYTES)
        if self._lake.id:
            raise _others_lake()
        # The manifest comes first: a lake that is taken has one, wherever a crash comes.
        Manifest.create(self._path, self._sealer, lake=lake)
        self._claim(self._lake)

    def _claim(self, lake: LakeFolder) -> None:
        """Takes a lake for the manifest that is there.

        Raises:
            InvalidSettingError: It is another one's.
        """
        manifest = Manifest(self._path, self._sealer, read_only=True)
        with contextlib.closing(manifest):
            own = manifest.lake.id
        if own is not None:
            lake.claim(own)
            if lake.id != own:
                raise _others_lake()

    def _refuse_a_lost_manifest(self) -> None:
        """An empty manifest beside what a store left would make everything in it an orphan."""
        if was_made(self._root) or self._has_data():
            raise StoreCorruptError(
                f"Expected the manifest of the activity store at {self._path}, found none that is "
                "complete. Restore it from a backup; nothing was changed."
            )

    def _acquire(self) -> tuple[Manifest, Writer]:
        """The writing side; takes the writer's lock on the first call."""
        if self._writer is None:
            if not self._writer_lock.take(self._lock_wait_seconds):
                raise self._busy()
            try:
                manifest = self._manifest(read_only=False)
                try:
                    self._recover(manifest)
                except BaseException:
                    manifest.close()
                    raise
            except BaseException:
                self._writer_lock.release()
                raise
            self._writer = (manifest, self._make_writer(manifest))
        return self._writer

    def _release(self) -> None:
        """Gives up the writing side."""
        if self._writer is not None:
            self._writer[0].close()
            self._writer = None
        self._writer_lock.release()

    def _busy(self) -> StoreUnavailableError:
        """The error for a store that another process writes."""
        return StoreUnavailableError(
            f"Expected to be the only writer of {self._root}, found another process that writes."
        )

    def _check_open(self) -> None:
        """Refuses work after `close`."""
        if self._closed:
            raise StoreUnavailableError("Expected an open store, found it closed.")


def _others_lake() -> InvalidSettingError:
    """The error for a lake that is another manifest's."""
    return InvalidSettingError(
        "Expected a LAKE_DIR that is this DATA_DIR's own, found that of another DATA_DIR; nothing"
        " was changed. Choose another folder.",
        setting="LAKE_DIR",
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the errors of SQLite and of the system into the store's own."""
    try:
        yield
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise StoreCorruptError(f"Expected the file {name}, found none.", file=name) from error
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreUnavailableError(
            f"Expected to use the activity store, found: {error}."
        ) from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(
            f"Expected an intact manifest, found: {error}.", file="manifest.sqlite"
        ) from error
