"""The bytes of a file of events: unpacked, cut into pieces of whole lines, from any place on."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.errors import NotFoundError, TooLargeError

__all__ = ["START", "Piece", "Place", "Source", "Text", "cut", "line_ends", "row_ends"]

HEADER_BYTES_MAX: Final = 1 << 20
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIP_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk begins: its number, its first row, and the first byte of a text unpacked."""

    chunk: int
    row: int
    byte: int = 0


START: Final = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """A file and how it is compressed."""

    path: Path
    bytes_total: int
    compression: str | None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Looks at the first bytes of a file.

        Raises:
            NotFoundError: There is no such file, or it may not be read.
        """
        if path.exists() and not path.is_file():
            # What is read from a pipe is gone, and a file is read twice.
            raise NotFoundError(f"Expected a file at {path}, found a folder or a pipe.")
        try:
            with path.open("rb") as file:
                magic = file.read(4)
            size = path.stat().st_size
        except OSError as error:
            raise NotFoundError(
                f"Expected a file that can be read at {path}, found: {error.strerror}."
            ) from None
        found = (name for start, name in _COMPRESSIONS.items() if magic.startswith(start))
        return cls(path, size, next(found, None))

    def stream(self) -> tuple[Any, Callable[[], int]]:
        """The bytes inside the compression, and how far the file itself has been read."""
        file = pa.OSFile(str(self.path), "rb")
        if self.compression is None:
            return file, file.tell
        return pa.CompressedInputStream(file, self.compression), file.tell

    def head(self) -> bytes:
        """The first bytes inside the compression."""
        stream, _ = self.stream()
        with stream:
            content: bytes = stream.read(HEADER_BYTES_MAX)
        return content


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of a text, where they end in it, and how far the file has been read."""

    number: int
    lines: bytes
    byte: int
    bytes_done: int

    def __repr__(self) -> str:
        return f"Piece(number={self.number}, lines=<private>)"


@dataclass(frozen=True, slots=True)
class Text:
    """A file of lines, from a place on."""

    source: Source
    chunk_bytes: int
    lines_max: int
    start: Place

    def pieces(self, first_byte: int, ends: "Ends") -> Iterator[Piece]:
        """Whole lines, about `chunk_bytes` and at most `lines_max` of them at a time.

        Args:
            first_byte: Where the lines begin, for a reading from the start.
            ends: Finds the ends of lines.
        """
        stream, tell = self.source.stream()
        number, byte = self.start.chunk, max(self.start.byte, first_byte)
        with stream:
            _skip(stream, byte, seekable=self.source.compression is None)
            for lines in _lines(stream, self.chunk_bytes, byte):
                for piece in cut(lines, ends, self.lines_max):
                    byte += len(piece)
                    yield Piece(number, piece, byte, min(tell(), self.source.bytes_total))
                    number += 1


def _skip(stream: Any, size: int, *, seekable: bool) -> None:
    """Goes on behind some bytes of a stream at its beginning."""
    if seekable:
        stream.seek(size)
        return
    while size:
        found = len(stream.read(min(size, _SKIP_BYTES)))
        if not found:
            raise EOFError
        size -= found


def _lines(stream: Any, chunk_bytes: int, at: int) -> Iterator[bytes]:
    """Whole lines, from a place on; cut at the last line end before each multiple of chunk_bytes.

    Raises:
        TooLargeError: A line is longer than that.
    """
    rest, wanted = b"", chunk_bytes - at % chunk_bytes
    while content := stream.read(wanted):
        wanted = chunk_bytes
        whole = content.rfind(b"\n") + 1
        if whole:
            yield b"".join((rest, memoryview(content)[:whole]))
            rest = content[whole:]
            continue
        rest += content
        if len(rest) > chunk_bytes:
            raise TooLargeError(f"Expected lines below {chunk_bytes} bytes, found a longer one.")
    if rest:
        yield rest


Ends = Callable[[bytes], NDArray[np.intp]]
"""A text → where its lines end."""


def cut(lines: bytes, ends: Ends, lines_max: int) -> Iterator[bytes]:
    """The same lines, at most lines_max at a time."""
    places = [len(lines)]
    if lines.count(b"\n") + lines.count(b"\r") >= lines_max:
        places = sorted({*ends(lines)[lines_max - 1 :: lines_max].tolist(), *places})
    for start, end in itertools.pairwise([0, *places]):
        yield lines[start:end]


def line_ends(lines: bytes) -> NDArray[np.intp]:
    """Where the lines of JSON end, each behind its newline."""
    return np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n")) + 1


def row_ends(lines: bytes) -> NDArray[np.intp]:
    """Where the lines of CSV end: a carriage return alone ends one too."""
    text = np.frombuffer(lines, np.uint8)
    following = np.append(text[1:], np.uint8(0))
    newline = ord("\n")
    return np.flatnonzero((text == newline) | ((text == ord("\r")) & (following != newline))) + 1
