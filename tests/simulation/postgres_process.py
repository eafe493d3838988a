"""One replica with several clients on a ledger in Postgres: asks when it is told to.

Run by `test_postgres_race.py`; `tests` must be on the module path.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dpdau.errors import DpdauError
from dpdau.ledger import Ledger
from simulation.ledger_cases import Ticking, mark_of, release, request


def main(folder: str) -> None:
    """For each ledger that a line names: opens it, says so, waits for a line, asks, and tells."""
    for line in sys.stdin:
        command = json.loads(line)
        mark = mark_of(Path(folder) / command["round"])
        ledger = Ledger(command["url"], mark_path=mark, clock=Ticking())
        say(ledger.ledger_id)
        sys.stdin.readline()
        plans = [f"{folder}-{client}" for client in range(command["clients"])]
        with ThreadPoolExecutor(len(plans)) as threads:
            counted = threads.map(partial(ask, ledger, tries=command["tries"]), plans)
            ended = sum(counted, Counter[str]())
        ledger.close()
        say(ended)


def ask(ledger: Ledger, name: str, *, tries: int) -> Counter[str]:
    """One client asks for several releases; counts how that ended."""
    return Counter(step(ledger, f"{name}-{one}") for one in range(tries))


def step(ledger: Ledger, plan_id: str) -> str:
    """Asks for one release; says how it ended."""
    try:
        ledger.step(request(plan_id), lambda: release(plan_id))
    except DpdauError as error:
        return error.code
    return "sold"


def say(body: object) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
