"""Does a piece of work in a fork, which dies at a point; reads commands as JSON lines.

Forks of a process that has everything imported start at once. `tests` must be on the module path.
"""

import json
import os
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from dpdau.errors import DpdauError, outcome
from simulation.point_cases import CASES, with_plan
from simulation.points import Points

BUG = 1


def main() -> None:
    """Answers until stdin ends."""
    with tempfile.TemporaryDirectory() as scratch:
        # What is imported late is imported now, and not in every fork.
        with_plan(Path(scratch) / "plan")
        for name in ("erase", "charge", "backup"):
            CASES[name].prepare(Path(scratch) / name)
            CASES[name].run(Path(scratch) / name)
    assert threading.active_count() == 1, "a fork has one thread only"
    answer("ready")
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(work(command))
        _, status = os.waitpid(child, 0)
        answer(json.dumps({"status": os.waitstatus_to_exitcode(status)}))


def answer(line: str) -> None:
    """One line to the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def work(command: dict[str, Any]) -> int:
    """The work of one fork; gives its exit code."""
    root, case = Path(command["root"]), CASES[command["case"]]
    points = Points(root / "data", fault=command["fault"], at=command["at"])
    try:
        points.install()
        try:
            case.run(root)
        except DpdauError as error:
            points.stop()
            # Space is there again: the same work goes on, in a process that is still the same.
            case.run(root)
            (root / "refused").write_text(f"{outcome(error).exit_code} {error.message}")
        points.stop()
        (root / "points").write_text(json.dumps(points.names))
        return 0
    except BaseException:  # noqa: BLE001 - the outermost loop of a fork.
        points.stop()
        (root / "bug").write_text(f"{points.names[-1:]}\n{traceback.format_exc()}")
        return BUG


if __name__ == "__main__":
    main()
