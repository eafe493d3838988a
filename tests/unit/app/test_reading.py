"""Events that are counted on a thread of their own: it ends when told to, or is left alone."""

import threading
from pathlib import Path

import numpy as np
import pytest

from dpdau.app.reading import Reading
from dpdau.errors import UnsupportedMediaError
from dpdau.ingest.event_file import Counted, MonthSpan
from dpdau.ingest.rules import Rules
from products import NOW, product_settings


class Waiting:
    """A source and its counting at once, which ends when a test says so."""

    name = "a test"

    def __init__(self, *, stops: bool) -> None:
        self.ended, self.stops, self.stopped = threading.Event(), stops, 0

    def may_be_there(self) -> bool:
        """Always."""
        return True

    def open(self, rules: Rules, span: MonthSpan) -> "Waiting":
        """Itself."""
        return self

    def count(self) -> Counted:
        """Waits for the end."""
        assert self.ended.wait(60)
        if self.stopped and self.stops:
            raise UnsupportedMediaError("Stopped.")
        return Counted(np.zeros((1, 1, 1), np.int64), 7, (), 0)

    def progress(self) -> tuple[float, int]:
        """Nothing so far."""
        return 0.0, 0

    def stop(self) -> None:
        """Notes it; ends where that is asked of it, the second time."""
        self.stopped += 1
        if self.stops and self.stopped == 2:
            self.ended.set()


def reading(root: Path, one: Waiting) -> Reading:
    """A month of it, begun."""
    found = Reading(product_settings(root), "2026-02", one, clock=lambda: NOW)
    found.start()
    return found


def test_what_was_counted_is_given_to_whoever_waits(tmp_path: Path) -> None:
    """Once, however often it is started; what the counting raises is raised there."""
    one = Waiting(stops=False)
    with reading(tmp_path, one) as found:
        found.start()
        assert not found.wait(0.0)
        one.ended.set()
        assert 7 == found.counted().received
    other = Waiting(stops=True)
    other.stopped = 2
    other.ended.set()
    with (
        reading(tmp_path, other) as failed,
        pytest.raises(UnsupportedMediaError, match="Stopped"),
    ):
        failed.counted()


def test_an_end_is_asked_for_until_it_comes(tmp_path: Path) -> None:
    """A stop between two statements ends neither, so it is said again."""
    one = Waiting(stops=True)
    reading(tmp_path, one).close()
    assert one.ended.is_set() and one.stopped >= 2


def test_an_engine_that_goes_on_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second interrupt ends the wait, and no thread keeps the process from ending."""
    one = Waiting(stops=False)
    found = reading(tmp_path, one)

    def interrupted(_seconds: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(found, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.close()
    left = [thread for thread in threading.enumerate() if thread.name == "count"]
    one.ended.set()
    assert [True] == [thread.daemon for thread in left]
