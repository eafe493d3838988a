"""A whole file on its way into a store: the next chunk is read while one is written.

How far a file has come is stored with each chunk, in the same transaction, so a run that was
killed is gone on with: nothing is applied twice and nothing is lost. The file is known by where it
lies, its size and when it was changed, never by what is in it.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dpdau.errors import DpdauError, NotFoundError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.files import CHUNK_BYTES, CHUNK_ROWS, Chunk
from dpdau.ingest.sources import START, Place

__all__ = ["Progress", "name_of_reading", "transfer"]

_DONE: Final = -1
"""As an offset it takes the offset out of the store."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the reading of a file has come, under a name that tells nothing of the file."""

    source: str
    start: Place = START

    @classmethod
    def of(cls, source: str, offset: Callable[[str], int | None]) -> "Progress":
        """What a store knows of a reading.

        Args:
            source: The name of the reading, keyed.
            offset: Gives the stored offset of a source, or None.
        """
        chunk, row, byte = (offset(name) for name in _names(source))
        if chunk is None or row is None or byte is None:
            return cls(source)
        return cls(source, Place(chunk, row, byte))

    def offsets(self, end: Place | None) -> dict[str, int]:
        """What is to be stored with a chunk: where it ends, or None behind the last one."""
        place = Place(_DONE, _DONE, _DONE) if end is None else end
        return dict(zip(_names(self.source), (place.chunk, place.row, place.byte), strict=True))


def name_of_reading(path: Path, *how: object) -> str:
    """What makes a reading of a file this one; for a keyed hash, since a path can be telling.

    Guarantee: nothing in it comes from the content but its size. A file that was changed, and the
    same file read in another way, have other names.

    Args:
        path: The file.
        how: Everything that decides what the file means.

    Raises:
        NotFoundError: There is no such file.
    """
    try:
        whole = path.resolve()
        found = whole.stat()
    except OSError as error:
        raise NotFoundError(
            f"Expected a file that can be read at {path}, found: {error.strerror}."
        ) from None
    facts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return json.dumps([str(whole), *facts, CHUNK_BYTES, CHUNK_ROWS, *map(repr, how)])


def transfer(
    chunks: Iterator[Chunk],
    submit: Callable[[Chunk, bool], Future[IngestReport]],
    told: Callable[[Chunk, IngestReport], None],
) -> IngestReport:
    """Has chunk after chunk written; at most three of them are in memory.

    Guarantee: a chunk is submitted when the one before it is durable, so they arrive in order.
    Where the reading fails, the chunks before are written first.

    Args:
        chunks: The chunks of a file.
        submit: Has a chunk written, given whether it is the last one.
        told: Hears of each chunk that is durable.

    Raises:
        DpdauError: What the reading or the writing raised.
    """
    total = IngestReport()
    written: list[tuple[Chunk, Future[IngestReport]]] = []
    failure: DpdauError | None = None
    chunk = next(chunks, None)
    while chunk is not None:
        following = None
        try:
            following = next(chunks, None)
        except DpdauError as error:
            failure = error
        total = _settled(written, total, told)
        is_last = following is None and failure is None
        written.append((chunk, submit(chunk, is_last)))
        chunk = following
    total = _settled(written, total, told)
    if failure is not None:
        raise failure
    return total


def _settled(
    written: list[tuple[Chunk, Future[IngestReport]]],
    total: IngestReport,
    told: Callable[[Chunk, IngestReport], None],
) -> IngestReport:
    """The total with the chunk that was submitted, once it is durable."""
    while written:
        chunk, future = written.pop()
        report = future.result()
        told(chunk, report)
        total += report
    return total


def _names(source: str) -> tuple[str, str, str]:
    """The offsets of a reading."""
    return f"{source}.chunk", f"{source}.row", f"{source}.byte"
