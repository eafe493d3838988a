"""Events that wait on disk until the service has taken them.

A spool is a folder. Each batch is one file: a record with the batch's id, then a record for each
event in the order of arrival. A record is its length and CRC-32 (two little-endian words) and its
bytes. A file that was sealed is never appended to, so what is sent under an id never changes.

What it survives:

| what ends | what is left |
|---|---|
| the process, also by `kill -9` | every event whose `append` returned |
| the power | what `sync` was called after |

The files hold raw user ids: the folder is 0700, files are 0600, and a batch is deleted as soon as
the service has acknowledged it.
"""

import errno
import fcntl
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dpdau.errors import SpoolFullError, SpoolUnavailableError

__all__ = ["Batch", "Contents", "Spool"]

_HEAD: Final = struct.Struct("<II")
_LOCK_NAME: Final = "spool.lock"
_BATCH_SUFFIX: Final = ".batch"
_DEAD_SUFFIX: Final = ".dead.ndjson"
_CORRUPT_SUFFIX: Final = ".corrupt"
_NUMBER_DIGITS: Final = 16
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class Batch:
    """One file of the spool.

    Args:
        number: Its place in the order; also the name of its file.
        weight: What its events count for in the limit of a batch.
        since: When it got its first event.
    """

    number: int
    size_bytes: int
    weight: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Contents:
    """What a batch holds.

    Args:
        batch_id: Empty where the file was cut off before it held any.
        events: Each as one line of JSON.
        is_intact: False where a record does not match its checksum; the events before it are here.
    """

    batch_id: str
    events: Sequence[bytes] = field(repr=False)
    is_intact: bool


class Spool:
    """A bounded queue of batches in a folder, for one process at a time.

    Args:
        folder: Made if missing.
        bytes_max: Of all files together, those that were set aside too.
        batch_bytes_max: A batch is sealed rather than get larger.
        batch_weight_max: A batch is sealed rather than get heavier.
        new_batch_id: Draws the id of a batch.
        monotonic: Seconds that never go back.

    Raises:
        SpoolUnavailableError: The folder is in use by another process, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bytes_max: int,
        batch_bytes_max: int,
        batch_weight_max: int,
        new_batch_id: Callable[[], str],
        monotonic: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._batch_bytes_max = batch_bytes_max
        self._batch_weight_max = batch_weight_max
        self._new_batch_id = new_batch_id
        self._monotonic = monotonic
        self._mutex = threading.RLock()
        self._process = os.getpid()
        self._open: tuple[Batch, int] | None = None
        self._unsynced: set[int] = set()
        self._sealed: deque[Batch] = deque()
        self._size_bytes = 0
        self._next_number = 1
        self._lock: int | None = self._take_folder()
        try:
            self._look_around()
        except OSError as error:
            os.close(self._lock)
            raise SpoolUnavailableError(
                f"Expected a folder that can be read, found {folder}: {error.strerror}."
            ) from None

    def __repr__(self) -> str:
        return f"Spool({str(self._folder)!r})"

    @property
    def size_bytes(self) -> int:
        """Everything it holds, also what was set aside."""
        return self._size_bytes

    @property
    def last_number(self) -> int:
        """The number of the newest batch; 0 where there never was one."""
        return self._next_number - 1

    def is_forked(self) -> bool:
        """Whether this process was forked from the one that opened the spool."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Refuses a process that was forked from the owner, before any lock is asked for.

        Raises:
            SpoolUnavailableError: It was.
        """
        if self.is_forked():
            raise SpoolUnavailableError(
                "Expected the process that opened the spool, found one that was forked from it;"
                " open a sender of its own after the fork."
            )

    def is_done(self, number: int) -> bool:
        """Whether this batch and every one before it have left."""
        with self._mutex:
            oldest = self._sealed[0] if self._sealed else self._open[0] if self._open else None
            return oldest is None or oldest.number > number

    def append(self, events: Sequence[tuple[bytes, int]]) -> bool:
        """Takes events, each with its weight; True where the worker has something new to look at.

        Guarantee: events of one call that returned are read back in their order, after those of
        all calls before it, also after the process was killed.

        Raises:
            SpoolFullError: There is no room, here or on the disk.
            SpoolUnavailableError: It is closed, of another process, or cannot be written.

        Where the disk is the cause, the fact `taken` says how many of the events are in all the
        same; otherwise none is.
        """
        self.check_process()
        with self._mutex:
            if self._lock is None:
                raise SpoolUnavailableError("Expected an open sender, found one that is closed.")
            needed = sum(_HEAD.size + len(line) for line, _ in events)
            if self._size_bytes + needed > self._bytes_max:
                raise SpoolFullError(
                    f"Expected room in the spool of {self._bytes_max} bytes, found none.", taken=0
                )
            was_empty, sealed, taken = self._open is None, len(self._sealed), 0
            try:
                for run in self._runs(events):
                    self._write(run)
                    taken += len(run)
            except OSError as error:
                # Only its kind is told: what failed to be written holds user ids.
                kind = SpoolFullError if error.errno in _NO_ROOM else SpoolUnavailableError
                raise kind(
                    f"Expected a spool that can be written, found: {error.strerror}.", taken=taken
                ) from None
            return was_empty or len(self._sealed) > sealed

    def head(self, *, seal_open: bool) -> Batch | None:
        """The oldest sealed batch, of which nothing changes any more; None where there is none."""
        with self._mutex:
            if not self._sealed and seal_open:
                self._seal()
            return self._sealed[0] if self._sealed else None

    def open_batch(self) -> Batch | None:
        """The batch that is being filled; None where there is none."""
        with self._mutex:
            return self._open[0] if self._open else None

    def read(self, batch: Batch) -> Contents:
        """What a sealed batch holds; a record at its end that was cut off is not part of it.

        Of a file that somebody has deleted it is nothing.
        """
        try:
            data = self._path(batch.number, _BATCH_SUFFIX).read_bytes()
        except FileNotFoundError:
            data = b""
        records, is_intact = _records(data)
        if not records:
            return Contents("", (), is_intact)
        return Contents(records[0].decode("ascii", "replace"), records[1:], is_intact)

    def remove(self, batch: Batch) -> None:
        """Deletes the oldest batch."""
        with self._mutex:
            assert self._sealed[0] is batch, "batches leave in their order"
            self._path(batch.number, _BATCH_SUFFIX).unlink(missing_ok=True)
            self._size_bytes -= self._sealed.popleft().size_bytes
            self._unsynced.discard(batch.number)

    def set_aside(self, batch: Batch, events: Sequence[bytes]) -> Path:
        """Moves the oldest batch out of the way, as NDJSON that can be mended and sent."""
        path = self._path(batch.number, _DEAD_SUFFIX)
        body = b"".join(event + b"\n" for event in events)
        fresh = path.with_suffix(".tmp")
        with open(fresh, "wb", opener=_private) as sink:
            sink.write(body)
            sink.flush()
            os.fsync(sink.fileno())
        fresh.replace(path)
        _sync_folder(self._folder)
        with self._mutex:
            self.remove(batch)
            self._size_bytes += len(body)
        return path

    def keep_corrupt(self, batch: Batch) -> Path:
        """Moves the file of the oldest batch out of the way as it is."""
        path = self._path(batch.number, _CORRUPT_SUFFIX)
        with self._mutex:
            assert self._sealed[0] is batch, "batches leave in their order"
            self._path(batch.number, _BATCH_SUFFIX).replace(path)
            self._sealed.popleft()
            self._unsynced.discard(batch.number)
        return path

    def sync(self) -> None:
        """Makes everything that was appended outlast a power failure."""
        with self._mutex:
            numbers, self._unsynced = self._unsynced, set()
        for number in sorted(numbers):
            try:
                handle = os.open(self._path(number, _BATCH_SUFFIX), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # The service has it.
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        if numbers:
            _sync_folder(self._folder)

    def close(self) -> None:
        """Seals what is open and gives the folder back; may be called twice.

        In a process that was forked from the owner it does nothing.
        """
        if self.is_forked():
            return
        with self._mutex:
            if self._lock is None:
                return
            self._seal()
            # A process that was forked has the descriptor too, and would go on holding the lock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def _take_folder(self) -> int:
        """The lock on the folder; the system gives it back when the process ends."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            lock = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolUnavailableError(
                f"Expected a folder that can be written, found {self._folder}: {error.strerror}."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise SpoolUnavailableError(
                f"Expected {self._folder} to be free, found it in use by another sender; each needs"
                " a folder of its own."
            ) from None
        return lock

    def _look_around(self) -> None:
        """Finds what an earlier process left.

        Its batches are all sealed: it may have sent what it wrote.
        """
        for path in sorted(self._folder.iterdir()):
            number, _, kind = path.name.partition(".")
            if not number.isdecimal():
                continue
            if kind.endswith("tmp"):
                path.unlink()
                continue
            size = path.stat().st_size
            self._size_bytes += size
            self._next_number = max(self._next_number, int(number) + 1)
            if f".{kind}" == _BATCH_SUFFIX:
                self._sealed.append(Batch(int(number), size))

    def _runs(self, events: Sequence[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
        """Events in the runs that go into one batch each; seals a batch that is full before each.

        A lazy generator: the caller writes a run before the next one is asked for.
        """
        run: list[tuple[bytes, int]] = []
        size = weight = 0
        for line, heavy in events:
            batch = self._open[0] if self._open else Batch(0, 0)
            full = (
                batch.size_bytes + size + len(line) + _HEAD.size > self._batch_bytes_max
                or batch.weight + weight + heavy > self._batch_weight_max
            )
            if full and (run or self._open):
                if run:
                    yield run
                self._seal()
                run, size, weight = [], 0, 0
            run.append((line, heavy))
            size += len(line) + _HEAD.size
            weight += heavy
        if run:
            yield run

    def _write(self, run: Sequence[tuple[bytes, int]]) -> None:
        """Appends to the open batch, or opens one; seals it where that made it full.

        Raises:
            OSError: The disk took less than all; then it holds none of the run.
        """
        batch, handle = self._open or self._begin()
        body = b"".join(_record(line) for line, _ in run)
        _write_all(handle, body)
        self._unsynced.add(batch.number)
        self._grow(batch, len(body))
        batch.weight += sum(heavy for _, heavy in run)
        if batch.weight >= self._batch_weight_max or batch.size_bytes >= self._batch_bytes_max:
            self._seal()

    def _begin(self) -> tuple[Batch, int]:
        """Opens a batch, with its id in it.

        Raises:
            OSError: It cannot be made; then there is none.
        """
        batch = Batch(self._next_number, 0, since=self._monotonic())
        # A number is taken once, also where a signal ends this halfway.
        self._next_number += 1
        path = self._path(batch.number, _BATCH_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        head = _record(self._new_batch_id().encode("ascii"))
        try:
            _write_all(handle, head)
        except BaseException:
            os.close(handle)
            path.unlink()
            raise
        self._open = batch, handle
        self._grow(batch, len(head))
        return self._open

    def _grow(self, batch: Batch, size: int) -> None:
        batch.size_bytes += size
        self._size_bytes += size

    def _seal(self) -> None:
        """Ends the open batch; it can be sent now."""
        if self._open is not None:
            batch, handle = self._open
            self._open = None
            self._sealed.append(batch)
            os.close(handle)

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / f"{number:0{_NUMBER_DIGITS}d}{suffix}"


def _record(content: bytes) -> bytes:
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def _records(data: bytes) -> tuple[list[bytes], bool]:
    """The whole records from the beginning on, and whether no checksum was wrong.

    A file that the power failure cut may end in zeros: no record is empty, so they end it too.
    """
    found: list[bytes] = []
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        content = data[at + _HEAD.size : at + _HEAD.size + length]
        if length == 0 or len(content) < length:
            return found, not any(data[at:]) or length > 0
        if zlib.crc32(content) != checksum:
            return found, False
        found.append(content)
        at += _HEAD.size + length
    return found, True


def _write_all(handle: int, body: bytes) -> None:
    """Writes all, or leaves the file as it was, also where a signal handler raises.

    Raises:
        OSError: Not all could be written.
    """
    size_before = os.fstat(handle).st_size
    view = memoryview(body)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except BaseException:
        os.ftruncate(handle, size_before)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
