"""`dpdau ingest` under `kill -9`: the next run goes on, nothing is lost, nothing comes twice."""

import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from streams import counts, recount, stream

SEED = 20260316
ROWS = 4_000
CHUNK_ROWS = 50

# The real command with small chunks, which kills itself at the n-th point: about to make something
# durable, in the middle of a transaction, or behind it.
CHILD = """
import os, signal, sys
from dpdau.activity.manifest import Manifest
from dpdau.cli import main, output
from dpdau.ingest import files

left = int(sys.argv.pop(1))
files.CHUNK_ROWS = int(sys.argv.pop(1))
fsync, move, store = os.fsync, output.ByteProgress.move, Manifest.set_offsets

def point():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def watched_fsync(descriptor):
    point()
    fsync(descriptor)
    point()

def watched_move(self, position, events):
    move(self, position, events)
    point()

def watched_store(self, offsets):
    point()
    store(self, offsets)
    point()

os.fsync, output.ByteProgress.move = watched_fsync, watched_move
Manifest.set_offsets = watched_store
main()
"""
NEVER = 0


@pytest.mark.slow
@pytest.mark.parametrize(("form", "kills"), [("ndjson", 3), ("parquet", 1)])
def test_a_killed_run_is_gone_on_with(form: str, kills: int, tmp_path: Path) -> None:
    """After kills at seeded points the counts are those of one run, and no event came twice."""
    seeded = random.Random(f"{SEED} {form}")
    path, data, began = tmp_path / f"events.{form}", tmp_path / "data", [0]
    rows = stream(SEED, ROWS)
    _write(path, rows)
    for kill in range(kills):
        # Three points a chunk or more, so the kills come well before the end.
        report, start, code = _run(path, data, seeded.randint(15, 50))
        assert (None, -signal.SIGKILL) == (report, code), f"seed {SEED}, kill {kill}"
        began.append(start)
    report, start, code = _run(path, data, NEVER)
    began.append(start)

    assert began == sorted(began) and 0 < start < ROWS, f"seed {SEED}: {began}"
    assert 0 == code and report is not None
    # Every event has an id, so one that was applied before would count as duplicate.
    assert (ROWS - start, ROWS - start, 0) == (
        report["received"],
        report["accepted"],
        report["duplicate"],
    )
    assert recount(rows) == counts(data)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    """The rows as a file."""
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(rows)
        pa.parquet.write_table(table, path, row_group_size=3 * CHUNK_ROWS + 7)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run(path: Path, data: Path, points: int) -> tuple[dict[str, int] | None, int, int]:
    """One run of the command: its report, the row at which it began, and its exit code."""
    command = f"ingest --from {path.name} --json".split()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(points), str(CHUNK_ROWS), *command],
        env={
            **os.environ,
            "DATA_DIR": str(data),
            "HASH_SALT_SECRET": "b64:" + base64.b64encode(bytes(range(32))).decode(),
        },
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"going on at row ([\d,]+)", done.stderr)
    start = int(found[1].replace(",", "")) if found else 0
    return (json.loads(done.stdout) if done.returncode == 0 else None), start, done.returncode
