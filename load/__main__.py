"""Runs a load test and says what came out.

Exit codes: 0 the target is reached without an error; 1 it is missed; 2 it could not be run.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from load.options import Options
from load.service import StartError, service
from load.summary import Summary

ROOT = Path(__file__).parents[1]


def main() -> int:
    """One test, as the environment says."""
    try:
        options = Options.of()
        found = run(replace(options, reports=options.reports.resolve()))
    except (StartError, ValueError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(found.to_text(), end="")
    print(f"reports    {options.reports}")
    return 1 if found.faults else 0


def run(options: Options) -> Summary:
    """Locust in a process of its own, on the given service or on one of its own."""
    options.reports.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        more = {}
        if options.host is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dpdau-load-"))
            own = stack.enter_context(service(Path(scratch), options.reports / "service.log"))
            options = replace(options, host=own.url, api_key=own.api_key)
            more = {"LOAD_IS_OWN": "1"}
        measured = options.reports / "measured.json"
        measured.unlink(missing_ok=True)
        run_locust(options, {**os.environ, **options.environment(), **more})
        if not measured.exists():
            raise StartError(f"Locust did not run; see {options.reports / 'locust.log'}.")
        found = Summary.of(json.loads(measured.read_text()))
        measured.unlink()
    text = json.dumps({**found.to_json(), **described(options)}, indent=2)
    (options.reports / "summary.json").write_text(text + "\n")
    (options.reports / "summary.txt").write_text(found.to_text())
    return found


def described(options: Options) -> dict[str, object]:
    """What was run; without the key."""
    names = ("users", "spawn", "runtime", "seed", "batch")
    return {"options": {name: getattr(options, name) for name in names}}


def run_locust(options: Options, environment: dict[str, str]) -> None:
    """The scenario; its own reports are CSV and HTML."""
    reports = options.reports
    command = [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary"),
        *("--locustfile", "load/locustfile.py", "--host", str(options.host)),
        *("--users", str(options.users), "--spawn-rate", str(options.spawn)),
        *("--run-time", options.runtime, "--stop-timeout", "10", "--exit-code-on-error", "0"),
        *("--csv", str(reports / "load"), "--html", str(reports / "load.html")),
        *("--logfile", str(reports / "locust.log")),
    ]
    with open(reports / "locust.txt", "w") as sink:
        subprocess.run(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT, check=False
        )


if __name__ == "__main__":
    sys.exit(main())
