"""Files as text: unpacked, cut into pieces of whole lines, from any place on."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpdau.errors import NotFoundError, TooLargeError
from dpdau.ingest.sources import START, Place, Source, Text, cut, line_ends, row_ends

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "gzip": gzip.compress,
    "zstd": lambda content: bytes(pa.compress(content, codec="zstd", asbytes=True)),
}
LINES = b"".join(b"%d" % (n * 37 % 1000) + b"x" * (n % 9) + b"\n" for n in range(200)) + b"last"


def text(folder: Path, content: bytes, *, chunk_bytes: int = 64, start: Place = START) -> Text:
    """A file of lines in pieces of at most 7 lines."""
    path = folder / "text"
    path.write_bytes(content)
    return Text(Source.of(path), chunk_bytes, 7, start)


@pytest.mark.parametrize("packed", PACKERS)
def test_a_text_is_its_pieces(packed: str, tmp_path: Path) -> None:
    """In order and whole, each with its number and its end, in every packing."""
    pieces = list(text(tmp_path, PACKERS[packed](LINES)).pieces(0, line_ends))

    assert b"".join(piece.lines for piece in pieces) == LINES
    assert list(range(len(pieces))) == [piece.number for piece in pieces]
    assert all(piece.lines.endswith(b"\n") for piece in pieces[:-1])
    assert len(LINES) == pieces[-1].byte
    assert max(piece.lines.count(b"\n") for piece in pieces) <= 7


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("chunk_bytes", [20, 64, 1000])
def test_the_cuts_do_not_depend_on_where_the_reading_begins(
    packed: str, chunk_bytes: int, tmp_path: Path
) -> None:
    """From the end of any piece on the same pieces follow."""
    content = PACKERS[packed](LINES)
    whole = list(text(tmp_path, content, chunk_bytes=chunk_bytes).pieces(4, line_ends))
    for done, piece in enumerate(whole, start=1):
        start = Place(done, 0, piece.byte)
        rest = text(tmp_path, content, chunk_bytes=chunk_bytes, start=start).pieces(4, line_ends)
        assert whole[done:] == list(rest)


def test_a_text_that_became_shorter_is_damaged(tmp_path: Path) -> None:
    """A packed text cannot be gone on with behind its end."""
    shorter = text(tmp_path, gzip.compress(LINES), start=Place(3, 9, len(LINES) + 1))

    with pytest.raises(EOFError):
        list(shorter.pieces(0, line_ends))


def test_a_line_that_is_longer_than_a_chunk_is_refused(tmp_path: Path) -> None:
    """Behind the lines before it."""
    pieces = text(tmp_path, b"ab\n" + b"x" * 200 + b"\n").pieces(0, line_ends)

    assert b"ab\n" == next(pieces).lines
    with pytest.raises(TooLargeError):
        next(pieces)


def test_a_folder_a_pipe_and_a_missing_file_are_no_sources(tmp_path: Path) -> None:
    """They are told apart from damaged ones, and nothing is taken out of the pipe."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        with pytest.raises(NotFoundError):
            Source.of(path)


@example(b"a\ra", 1)
@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n"])).map(b"".join), st.integers(1, 4))
def test_rows_end_as_python_splits_lines(content: bytes, lines_max: int) -> None:
    """With a newline, a carriage return, or both together; no piece has too many."""
    pieces = [one for one in cut(content, row_ends, lines_max) if one]

    assert content == b"".join(pieces)
    assert all(len(one.splitlines()) <= lines_max for one in pieces)
    assert content.splitlines() == [line for one in pieces for line in one.splitlines()]


def test_no_repr_shows_lines(tmp_path: Path) -> None:
    """They hold user ids."""
    (piece,) = text(tmp_path, b"canary\n").pieces(0, line_ends)

    assert "canary" not in repr(piece)
