"""The tally adds up what became of events."""

from dpdau.activity.store import Applied
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.tally import Tally


def test_reports_add_up() -> None:
    """Every outcome by itself, and what is given out is a copy."""
    tally = Tally()
    tally.add([IngestReport.of(6, Applied(3, 2, 1), ()), IngestReport.of(2, Applied(2, 0, 0), ())])
    found = tally.outcomes()
    found["accepted"] = 0

    assert {"accepted": 5, "duplicate": 2, "late": 1, "rejected": 0} == tally.outcomes()
