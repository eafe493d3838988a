"""A command measured as a whole process."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks import measure


def test_a_run_has_what_the_command_printed_and_used(tmp_path: Path) -> None:
    """Output, CPU time and peak memory are those of the command, not of who started it."""
    larger = bytearray(600_000_000)
    code = "x = bytearray(200_000_000); print(len(x) + sum(range(1_000_000)) * 0)"
    done = measure.run([sys.executable, "-c", code], cwd=tmp_path, environment=os.environ)

    assert "200000000\n" == done.output
    assert 200 < done.peak_mb < 400 < len(larger) / 1e6
    assert 0 < done.cpu_seconds
    assert 0 < done.wall_seconds


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    """Its exit code is told."""
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(measure.CommandFailedError, match="ended with 3"):
        measure.run(command, cwd=tmp_path, environment=os.environ)


def test_a_spread_has_least_middle_and_largest() -> None:
    """Of any number of runs."""
    assert {"min": 1, "median": 2.5, "max": 9, "runs": 4} == measure.spread([9, 1, 2, 3])
