"""A command as a whole process: wall and CPU seconds, peak memory, and what it printed."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Run:
    """One run; memory is the largest of its processes."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


class CommandFailedError(Exception):
    """A command of the benchmark ended with an error."""


def run(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> Run:
    """Runs a command to its end.

    Raises:
        CommandFailedError: It ended with another code than 0.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=cwd, env=dict(environment), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandFailedError(f"{' '.join(command)} ended with {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB / 1e6, output)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Least, middle and largest of some measurements."""
    return {
        "min": round(min(values), digits),
        "median": round(median(values), digits),
        "max": round(max(values), digits),
        "runs": len(values),
    }


def figures(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """The spread of several runs of one command."""
    return {
        "wall_seconds": spread([one.wall_seconds for one in runs]),
        "cpu_seconds": spread([one.cpu_seconds for one in runs]),
        "peak_mb": spread([one.peak_mb for one in runs], 0),
    }
