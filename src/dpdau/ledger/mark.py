"""The high-water mark: how far the ledger had come, kept outside the ledger's file.

A restored older copy of the ledger would forget spending. The mark remembers the last entry that
was committed, so that such a copy is refused.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dpdau.errors import LedgerConflictError, LedgerCorruptError, LedgerUnavailableError
from dpdau.ledger.canonical import canonical_json
from dpdau.ledger.places import make_private_folder

_POLL_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class Mark:
    """An entry that was committed: nothing older than it may be opened again."""

    ledger_id: str
    seq: int
    hash: str


class HighWaterMark:
    """The mark's file, shared by every process that opens the ledger.

    Guarantee: the stored `seq` never falls, and a reader finds one whole mark or none. A write is
    tmp + fsync + rename + directory fsync, under a lock on a file beside the mark.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self.path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._timeout_seconds = timeout_seconds

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps every other process and thread from opening a ledger or moving the mark.

        Raises:
            LedgerConflictError: Another process held it for longer than the timeout.
            LedgerUnavailableError: The lock file cannot be made.
        """
        handle = self._open_lock()
        try:
            self._acquire(handle)
            yield
        finally:
            os.close(handle)

    def read(self) -> Mark | None:
        """The mark, or None if there is none yet.

        Raises:
            LedgerCorruptError: The file is there and is not a mark.
            LedgerUnavailableError: The file cannot be read.
        """
        try:
            body = json.loads(self.path.read_bytes())
            return Mark(str(body["ledger_id"]), int(body["seq"]), str(body["hash"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerCorruptError(
                "Expected a high-water mark of the ledger, found a file that is not one. Put the "
                "file back from the same moment as the ledger, or restore a backup.",
                mark=str(self.path),
            ) from error

    def advance(self, mark: Mark) -> None:
        """Moves the mark forward; an older mark changes nothing. Durable when it returns.

        Raises:
            LedgerCorruptError: The mark belongs to another ledger, or the ledger has split.
        """
        with self.hold():
            self.move(mark)

    def move(self, mark: Mark) -> None:
        """`advance` for a caller that is inside `hold`."""
        found = self.read()
        if found is not None:
            self._check_same_history(found, mark)
            if found.seq >= mark.seq:
                return
        try:
            self._replace(canonical_json(asdict(mark)))
        except OSError as error:
            raise self._unavailable(error) from error

    def check_writable(self) -> None:
        """Proves that the mark can be moved now.

        Raises:
            LedgerUnavailableError: It cannot.
        """
        with self.hold():
            found = self.read()
            if found is None:
                return
            try:
                self._replace(canonical_json(asdict(found)))
            except OSError as error:
                raise self._unavailable(error) from error

    def _check_same_history(self, found: Mark, mark: Mark) -> None:
        """Two marks of one ledger agree on its identity, and on the hash of the same entry."""
        split = found.seq == mark.seq and found.hash != mark.hash
        if found.ledger_id != mark.ledger_id or split:
            raise LedgerCorruptError(
                f"Expected the high-water mark of ledger {mark.ledger_id}, found one of another "
                "history. Two ledgers share one mark: stop both and keep the one that the mark "
                "names.",
                mark=str(self.path),
                mark_ledger_id=found.ledger_id,
                ledger_id=mark.ledger_id,
            )

    def _open_lock(self) -> int:
        """An open file descriptor of the lock file."""
        try:
            make_private_folder(self._lock_path.parent)
            return os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unavailable(error) from error

    def _acquire(self, handle: int) -> None:
        """Takes the lock, or gives up when the time is over."""
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise LedgerConflictError(
                        "Expected to hold the ledger's high-water mark, found another process "
                        "holding it for too long.",
                        lock=str(self._lock_path),
                    ) from error
                time.sleep(_POLL_SECONDS)

    def _replace(self, body: bytes) -> None:
        """Puts a whole new file in place of the mark."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            os.write(handle, body)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unavailable(self, error: OSError) -> LedgerUnavailableError:
        """A failing disk or folder, in our words."""
        return LedgerUnavailableError(
            f"Expected to read and write the ledger's high-water mark, found {error.strerror}.",
            mark=str(self.path),
        )
