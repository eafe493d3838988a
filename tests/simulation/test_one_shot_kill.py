"""A month from a file under `kill -9`: all of it is in the ledger, or nothing."""

import datetime as dt
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.app.one_shot import OneShot
from dpdau.app.reading import Reading, Source
from products import product_settings

MONTH = "2026-02"
NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)

CHILD = """
import datetime as dt, os, signal, sys
from pathlib import Path
from dpdau.app.one_shot import OneShot
from dpdau.app.reading import Reading, Source
from dpdau.ingest.event_tables import EventTables
from dpdau.ledger import steps
from dpdau.ledger.chain import Chain
from dpdau.ledger.mark import HighWaterMark
from dpdau.settings import load

root, point = Path(sys.argv[1]), sys.argv[2]
now = lambda: dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
die = lambda *_args, **_more: os.kill(os.getpid(), signal.SIGKILL)
append, entries = Chain.append, [0]

def counted(self, kind, values):
    entries[0] += 1
    if point == f"entry {entries[0]}":
        die()
    return append(self, kind, values)

settings = load(root / "dpdau.toml", DATA_DIR=root / "data")
with OneShot(settings, clock=now) as shot:
    Chain.append = counted
    if point == "counting":
        EventTables.resolve = die
    if point == "before mark":
        HighWaterMark.advance = die
    with Reading(settings, "2026-02", Source(path=root / "e.parquet"), clock=now) as reading:
        shot.release(reading)
    if point == "after":
        die()
"""

POINTS = {
    "counting": False,
    "entry 1": False,
    "entry 4": False,
    "entry 88": False,
    "before mark": True,
    "after": True,
}
"""Where the process dies, and whether the month is there then; 88 entries are the whole of it."""


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_all_of_a_month_or_nothing(tmp_path: Path, point: str) -> None:
    """The ledger verifies, has one charge with 84 releases or none, and can be asked again."""
    settings = product_settings(tmp_path)
    days = [dt.date(2026, 2, day) for day in range(1, 29)]
    columns = {"user_id": ["somebody"] * 28, "op": ["+"] * 28, "day": days}
    pa.parquet.write_table(pa.table(columns), tmp_path / "e.parquet")
    child = [sys.executable, "-c", CHILD, str(tmp_path), point]
    died = subprocess.run(child, check=False, timeout=120)

    with OneShot(settings, clock=lambda: NOW) as shot:
        left = shot._ledger.verify()
        source = Source(path=tmp_path / "e.parquet")
        with Reading(settings, MONTH, source, clock=lambda: NOW) as reading:
            again = shot.release(reading)
        report = shot._ledger.verify()
    whole = POINTS[point]
    held = [path.read_bytes() for path in settings.DATA_DIR.rglob("*") if path.is_file()]
    assert -signal.SIGKILL == died.returncode
    assert (True, int(whole), 84 * whole) == (left.ok, left.charges, left.releases)
    assert whole == again.replayed
    assert (True, 1, 84) == (report.ok, report.charges, report.releases)
    assert not [body for body in held if b"somebody" in body]
