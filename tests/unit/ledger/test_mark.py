"""The high-water mark."""

import stat
import threading
from pathlib import Path

import pytest

from dpdau.errors import LedgerConflictError, LedgerCorruptError, LedgerUnavailableError
from dpdau.ledger.mark import HighWaterMark, Mark


@pytest.fixture
def mark(tmp_path: Path) -> HighWaterMark:
    """A mark that is not there yet."""
    return HighWaterMark(tmp_path / "made" / "ledger.mark.json", timeout_seconds=0.02)


def at(seq: int, *, ledger_id: str = "one") -> Mark:
    """A mark of a history in which each entry has its own hash."""
    return Mark(ledger_id, seq, f"hash-{seq}")


def test_no_mark_reads_as_none(mark: HighWaterMark) -> None:
    """Before the first commit there is no mark."""
    assert mark.read() is None


def test_mark_is_read_as_written(mark: HighWaterMark) -> None:
    """The mark comes back equal, from a private file with no leftovers beside it."""
    mark.advance(at(3))

    assert at(3) == mark.read()
    assert 0o600 == stat.S_IMODE(mark.path.stat().st_mode)
    assert {"ledger.mark.json", "ledger.mark.json.lock"} == {
        path.name for path in mark.path.parent.iterdir()
    }


def test_mark_never_falls(mark: HighWaterMark) -> None:
    """An older mark that arrives late changes nothing."""
    mark.advance(at(5))
    mark.advance(at(4))
    mark.advance(at(5))

    assert at(5) == mark.read()


def test_threads_leave_the_highest_mark(tmp_path: Path) -> None:
    """Marks that arrive out of order from many threads end at the highest."""
    mark = HighWaterMark(tmp_path / "mark.json", timeout_seconds=30)
    threads = [threading.Thread(target=mark.advance, args=(at(seq),)) for seq in (3, 9, 1, 7, 8, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert at(9) == mark.read()


@pytest.mark.parametrize("other", [at(9, ledger_id="two"), Mark("one", 5, "another hash")])
def test_another_history_is_refused(mark: HighWaterMark, other: Mark) -> None:
    """A second ledger, or a second history of the same ledger, cannot move the mark."""
    mark.advance(at(5))

    with pytest.raises(LedgerCorruptError, match="another history"):
        mark.advance(other)

    assert at(5) == mark.read()


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"ledger_id": "a", "seq": "x", "hash": "h"}'])
def test_a_broken_mark_is_corrupt(mark: HighWaterMark, body: str) -> None:
    """A file that is not a mark stops the start; it is not taken for a missing one."""
    mark.advance(at(1))
    mark.path.write_text(body)

    with pytest.raises(LedgerCorruptError, match="not one"):
        mark.read()


def test_a_held_mark_is_waited_for_and_given_up(mark: HighWaterMark) -> None:
    """Another holder that stays gives a conflict; the mark stays as it was."""
    mark.advance(at(1))

    with mark.hold(), pytest.raises(LedgerConflictError, match="holding it for too long"):
        mark.advance(at(2))

    assert at(1) == mark.read()


def test_a_mark_that_cannot_be_written_is_an_outage(mark: HighWaterMark) -> None:
    """A failing write leaves the old mark and says which file."""
    mark.advance(at(1))
    mark.path.with_name("ledger.mark.json.tmp").mkdir()

    for attempt in (lambda: mark.advance(at(2)), mark.check_writable):
        with pytest.raises(LedgerUnavailableError) as refused:
            attempt()
        assert {"mark": str(mark.path)} == refused.value.facts
    assert at(1) == mark.read()


def test_a_mark_that_cannot_be_read_is_an_outage(mark: HighWaterMark) -> None:
    """A folder in the mark's place is not a missing mark."""
    mark.path.mkdir(parents=True)

    with pytest.raises(LedgerUnavailableError):
        mark.read()


def test_a_lock_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    """A mark under a file cannot be locked."""
    (tmp_path / "file").write_text("in the way")
    mark = HighWaterMark(tmp_path / "file" / "mark.json", timeout_seconds=1)

    with pytest.raises(LedgerUnavailableError):
        mark.advance(at(1))


def test_check_leaves_the_mark(mark: HighWaterMark) -> None:
    """The probe changes nothing, with or without a mark."""
    mark.check_writable()
    mark.advance(at(2))
    mark.check_writable()

    assert at(2) == mark.read()
