"""A command as a whole process: wall and CPU seconds, peak memory, and what it printed."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_KIB: Final = 1024
_LAUNCHER: Final = """
import json, os, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
figures = (time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
with open(sys.argv[1], "w") as to:
    json.dump([os.waitstatus_to_exitcode(status), *figures], to)
"""
"""A small process in between: the peak memory of a process counts that of whoever started it."""


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
    with tempfile.NamedTemporaryFile("r") as told:
        launched = [sys.executable, "-S", "-c", _LAUNCHER, told.name, *command]
        output = subprocess.run(
            launched, cwd=cwd, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        code, wall, cpu, peak = json.load(told)
    if code:
        raise CommandFailedError(f"{' '.join(command)} ended with {code}")
    return Run(wall, cpu, peak * _KIB / 1e6, output)


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
