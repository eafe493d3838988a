"""Files of events, as executors read them: piece by piece, by the readers of this room."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from dpdau.errors import NotFoundError
from dpdau.ingest.batch import build
from dpdau.ingest.files import FileFormat, cuts, read
from dpdau.ingest.sources import Place
from dpdau.ingest.spark.recipe import Recipe, Tally, ended

__all__ = ["Piece", "pieces_of", "rows_of_pieces", "table_of"]

_COLUMNS: Final = ("id", "piece")
PIECES_MAX: Final = 1 << 20
_PLACES: Final = 40
"""Bits for the places of the events of one piece; those before them number the piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file that one task reads: from a place, up to a row (None: to its end)."""

    path: str
    start: Place
    stop_row: int | None
    file_format: FileFormat | None


def pieces_of(source: Path, file_format: FileFormat | None = None) -> list[Piece]:
    """What is to be read of a file, or of all files in a folder, in the order of their names.

    A Parquet file is cut between its row groups; any other is one piece. As Spark has it, names
    that begin with a dot or an underscore are not data.

    Raises:
        NotFoundError: There is nothing to read, or it may not be read, or has no name in UTF-8.
        UnsupportedMediaError: A file has no known format, or is damaged.
    """
    found = [source]
    if source.is_dir():
        inside = (one for one in sorted(source.rglob("*")) if one.is_file())
        found = [one for one in inside if not _is_hidden(one.relative_to(source))]
    pieces = []
    for path in found:
        whole = path.resolve()
        if not _is_text(str(whole)):
            raise NotFoundError(f"Expected names of files in UTF-8 in {source}, found another one.")
        places = cuts(whole, file_format=file_format)
        for start, following in zip(places, [*places[1:], None], strict=True):
            stop_row = None if following is None else following.row
            pieces.append(Piece(str(whole), start, stop_row, file_format))
    if not 0 < len(pieces) <= PIECES_MAX:
        raise NotFoundError(
            f"Expected 1..{PIECES_MAX} files or parts of files in {source}, found {len(pieces)}."
        )
    return pieces


def table_of(pieces: Sequence[Piece]) -> pa.Table:
    """Pieces as rows, each with its number."""
    told = [msgspec.json.encode(one).decode() for one in pieces]
    return pa.table({"id": pa.array(range(len(pieces)), pa.int64()), "piece": told})


def rows_of_pieces(
    recipe: Recipe, batches: "Iterable[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Turns pieces of files into rows of the lake; one call for each task of Spark.

    Guarantee: events have higher positions in later pieces, and later in a piece.

    Args:
        recipe: How.
        batches: Those that this task reads, as rows of `table_of`.
    """
    tally = Tally()
    return ended(recipe, tally, _rows(recipe, batches, tally))


def _rows(
    recipe: Recipe, batches: "Iterable[pa.RecordBatch]", tally: Tally
) -> "Iterator[pa.RecordBatch]":
    pseudonymizer, dimensions = recipe.pseudonymizer(), recipe.rules.dimensions
    for batch in batches:
        for number, told in zip(*(batch[name].to_pylist() for name in _COLUMNS), strict=True):
            piece, done = msgspec.json.decode(told, type=Piece), number << _PLACES
            for chunk in read(
                Path(piece.path),
                rules=recipe.rules,
                file_format=piece.file_format,
                start=piece.start,
            ):
                decoded = chunk.decoded
                built = build(decoded, pseudonymizer, dimensions=dimensions)
                tally.count(decoded.received, built.events, decoded.rejected)
                yield recipe.rows(built, done + np.arange(built.events, dtype=np.int64))
                done += built.events
                if piece.stop_row is not None and chunk.end.row >= piece.stop_row:
                    break


def _is_text(name: str) -> bool:
    """Whether a name can be told to an executor."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
