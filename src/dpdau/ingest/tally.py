"""What became of the events that one process took: for its operators, and nobody else."""

import threading
from collections.abc import Iterable

from dpdau.ingest.batch import IngestReport


class Tally:
    """Adds up reports; any thread may. The numbers are exact, and so they are private."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes = {"accepted": 0, "duplicate": 0, "late": 0, "rejected": 0}

    def add(self, reports: Iterable[IngestReport]) -> None:
        """Counts the events of some reports."""
        with self._lock:
            for report in reports:
                for name, events in report.outcomes().items():
                    self._outcomes[name] += events

    def outcomes(self) -> dict[str, int]:
        """The number of events by outcome, private."""
        with self._lock:
            return dict(self._outcomes)
