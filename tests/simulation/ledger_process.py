"""One of several processes on one ledger: reads commands as JSON lines, answers in kind.

Run by `test_ledger_race.py`; `tests` must be on the module path.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dpdau.errors import DpdauError
from dpdau.ledger import Ledger, release_to_json
from dpdau.ledger.mark import HighWaterMark
from simulation.ledger_cases import open_ledger, open_request, release, request, take


def main() -> None:
    """Answers until stdin ends."""
    ledger: Ledger | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "open":
            ledger = open_ledger(Path(command["folder"]))
            answer({"opened": ledger.ledger_id})
            continue
        assert ledger is not None
        answer({"asking": command["plan_id"]})
        answer(DEEDS[command["do"]](ledger, command))
    if ledger is not None:
        ledger.close()


def step(ledger: Ledger, command: dict[str, Any]) -> dict[str, Any]:
    """Takes one step, and dies where the command says."""
    plan_id, crash = command["plan_id"], command.get("crash")
    if crash == "before mark":
        HighWaterMark.advance = lambda *_: die()  # type: ignore[method-assign]

    def make_release() -> Any:
        if crash == "inside":
            die()
        return release(plan_id, estimate=command["estimate"])

    try:
        made, replayed = ledger.step(request(plan_id), make_release)
    except DpdauError as error:
        return {"error": error.code}
    return {"replayed": replayed, "body": release_to_json(made).decode()}


def open_plan(ledger: Ledger, command: dict[str, Any]) -> dict[str, Any]:
    """Opens a month plan."""
    return {"opened": ledger.open_plan(open_request(command["plan_id"]))}


def take_day(ledger: Ledger, command: dict[str, Any]) -> dict[str, Any]:
    """Takes the first day of a month plan."""
    made, replayed = take(ledger, 0, command["plan_id"], estimate=command["estimate"])
    bodies = "".join(release_to_json(one).decode() for one in made)
    return {"replayed": replayed, "body": bodies}


DEEDS = {"step": step, "open_plan": open_plan, "take_day": take_day}


def die() -> None:
    """Ends the process as a power cut would: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def answer(body: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
