"""Chunks on their way into a store: their order, their progress, and what a failure leaves."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from dpdau.errors import DpdauError, NotFoundError, StoreUnavailableError, UnsupportedMediaError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.bulk import Progress, name_of_reading, transfer
from dpdau.ingest.event import Decoded
from dpdau.ingest.files import START, Chunk, Place

CANARY = "canary-7d01aa"


class Desk:
    """Takes chunks; a chunk is durable when its report is asked for."""

    def __init__(self, failing: int | None = None) -> None:
        self.log: list[tuple[str, int]] = []
        self.last: list[int] = []
        self._failing = failing

    def chunks(self, count: int, damage: DpdauError | None = None) -> Iterator[Chunk]:
        """Empty chunks, and perhaps an error behind them."""
        for number in range(count):
            self.log.append(("read", number))
            yield Chunk(number, Decoded([], [], 0), Place(number + 1, number + 1), number, count)
        if damage is not None:
            raise damage

    def submit(self, chunk: Chunk, is_last: bool) -> Future[IngestReport]:
        """Takes one chunk."""
        self.log.append(("submitted", chunk.number))
        if is_last:
            self.last.append(chunk.number)
        desk, failing = self, self._failing

        class Written(Future[IngestReport]):
            """The report of the chunk."""

            def result(self, timeout: float | None = None) -> IngestReport:
                if chunk.number == failing:
                    raise StoreUnavailableError("Expected to write.")
                desk.log.append(("written", chunk.number))
                return IngestReport(received=1, accepted=1)

        return Written()

    def told(self, chunk: Chunk, report: IngestReport) -> None:
        """Hears of what is durable."""
        assert ("written", chunk.number) in self.log and 1 == report.received


def test_the_next_chunk_is_read_while_one_is_written() -> None:
    """Two more at most; a chunk is submitted when the one before it is durable."""
    desk = Desk()
    report = transfer(desk.chunks(4), desk.submit, desk.told)

    assert 4 == report.received
    assert [3] == desk.last
    assert desk.log == [
        ("read", 0),
        ("read", 1),
        ("submitted", 0),
        ("read", 2),
        ("written", 0),
        ("submitted", 1),
        ("read", 3),
        ("written", 1),
        ("submitted", 2),
        ("written", 2),
        ("submitted", 3),
        ("written", 3),
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_a_file_of_one_chunk_or_none_is_done(count: int) -> None:
    """The only chunk is the last one."""
    desk = Desk()

    assert count == transfer(desk.chunks(count), desk.submit, desk.told).received
    assert list(range(count)) == desk.last


def test_what_is_before_the_damage_is_written() -> None:
    """Then comes the error; no chunk is taken for the last one, so the progress stays."""
    desk = Desk()
    with pytest.raises(UnsupportedMediaError):
        transfer(desk.chunks(2, UnsupportedMediaError("Damaged.")), desk.submit, desk.told)

    assert ("written", 1) in desk.log
    assert [] == desk.last


def test_nothing_is_submitted_behind_a_chunk_that_was_not_written() -> None:
    """The error of the store ends the file."""
    desk = Desk(failing=1)
    with pytest.raises(StoreUnavailableError):
        transfer(desk.chunks(5), desk.submit, desk.told)

    assert ("submitted", 2) not in desk.log


def test_progress_is_what_was_stored_last() -> None:
    """Both ways; behind the last chunk everything about the file is forgotten."""
    place = Place(3, 700, 9_000)
    stored = Progress("name").offsets(place)

    assert Progress("name", place) == Progress.of("name", stored.get)
    assert START == Progress.of("other", stored.get).start
    assert {-1} == set(Progress("name").offsets(None).values())
    assert stored.keys() == Progress("name").offsets(None).keys()


def test_a_reading_is_known_by_the_place_of_the_file_and_how_it_is_read(tmp_path: Path) -> None:
    """Never by its content: only its size and when it was changed tell one state from another."""
    path, other = tmp_path / "e.csv", tmp_path / "f.csv"
    path.write_text(CANARY)
    first = name_of_reading(path, "csv", None)
    found = path.stat()
    path.write_text(CANARY[::-1])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    same = name_of_reading(path, "csv", None)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    changed = name_of_reading(path, "csv", None)
    other.write_text(CANARY)

    assert first == same
    assert CANARY not in first
    assert 4 == len({first, changed, name_of_reading(path, "csv", "a"), name_of_reading(other)})


def test_a_missing_file_is_told_apart(tmp_path: Path) -> None:
    """As one that cannot be read."""
    with pytest.raises(NotFoundError):
        name_of_reading(tmp_path / "none.csv")
