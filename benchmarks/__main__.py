"""Runs the benchmark, adds one line to `results.jsonl` and writes the page in the docs.

    python -m benchmarks [--sizes S,M,L] [--runs 5] [--only one-shot,bulk,...] [--data FOLDER]

What is compared is run in turn, so that all meet the same machine in the same minutes.
"""

import argparse
import base64
import datetime as dt
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import page, salted, service, workload
from benchmarks.measure import Run, figures, run, spread

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
RIVALS: Final = HERE / "rivals"
RESULTS: Final = HERE / "results.jsonl"
EPSILON, DELTA = "3.0", "1e-6"
_DPDAU: Final = str(Path(sys.executable).with_name("dpdau"))
_VERSIONS: Final = ("dp-dau-mau", "numpy", "pyarrow", "duckdb", "polars", "opendp", "pyspark")
_STEP_USERS: Final = {"S": 100_000, "M": 1_000_000, "L": 10_000_000}
_HELP_RUNS: Final = 10


def main(arguments: Sequence[str]) -> None:
    """Parses the options and runs what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", default="S,M", help="of S, M, L, comma-separated")
    parser.add_argument("--runs", type=int, default=5, help="of each command")
    parser.add_argument("--only", default=",".join(TASKS), help="names, comma-separated")
    parser.add_argument("--data", type=Path, default=ROOT / "reports" / "bench")
    asked = parser.parse_args(arguments)
    sizes = asked.sizes.split(",")
    files = {size: workload.write(asked.data, size) for size in sizes}
    found: dict[str, Any] = {}
    try:
        for name in asked.only.split(","):
            _say(f"{name} ...")
            found[name] = TASKS[name](files, asked.runs)
            _say(json.dumps(found[name]))
    finally:
        # What was measured before something failed is kept.
        line = {**_circumstances(), "tasks": found}
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write(json.dumps(line) + "\n")
    for path, text in page.pages(RESULTS).items():
        path.write_text(text, "utf-8")
        _say(f"wrote {path.relative_to(ROOT)}")


Files = Mapping[str, Mapping[str, Path]]


def one_shot(files: Files, runs: int) -> dict[str, Any]:
    """An event file in, a month of numbers out, beside the same job in other programs."""
    table = {}
    for size, paths in files.items():
        source = str(paths["parquet"])
        truth = json.loads(paths["truth"].read_text("utf-8"))
        programs: dict[str, Callable[[], Run]] = {
            "dpdau": lambda source=source: _one_shot(source),
            "duckdb": lambda source=source: _rival("duckdb_masks.py", source),
            "polars": lambda source=source: _rival("polars_masks.py", source),
            "opendp": lambda source=source: _rival("opendp_bounded.py", source, EPSILON, DELTA),
        }
        done: dict[str, list[Run]] = {name: [] for name in programs}
        for number in range(runs):
            for name, program in programs.items():
                # It takes minutes and most of the memory at size L; its figures hardly vary.
                if name != "opendp" or size != "L" or number == 0:
                    done[name].append(program())
        middle = {
            name: float(np.median([one.wall_seconds for one in some]))
            for name, some in done.items()
        }
        memory = {
            name: float(np.median([one.peak_mb for one in some])) for name, some in done.items()
        }
        errors = _errors([one.output for one in done["dpdau"]], truth["month"])
        theirs = _rms(
            [
                np.array(json.loads(one.output), float) - np.array(truth["others"], float)
                for one in done["opendp"]
            ]
        )
        table[size] = {
            "rows": truth["rows"],
            "users": truth["users"],
            "programs": {name: figures(some) for name, some in done.items()},
            "time_over_sql": round(middle["dpdau"] / middle["duckdb"], 2),
            "seconds_over_sql": round(middle["dpdau"] - middle["duckdb"], 2),
            "memory_over_sql": round(memory["dpdau"] / memory["duckdb"], 2),
            "times_faster_than_opendp": round(middle["opendp"] / middle["dpdau"], 1),
            "rmse": errors,
            "opendp_rmse": round(theirs, 2),
            "rmse_over_opendp": round(errors["dau and mau"] / theirs, 2),
        }
    return table


def bulk(files: Files, runs: int) -> dict[str, Any]:
    """Event files into the durable store, the whole command."""
    table = {}
    for size, paths in files.items():
        for kind in ("parquet", "ndjson"):
            done = []
            for _ in range(runs if size != "L" else min(runs, 2)):
                with _data_dir() as (folder, environment):
                    run([_DPDAU, "init"], cwd=folder, environment=environment)
                    command = [_DPDAU, "ingest", "--from", str(paths[kind].absolute()), "--json"]
                    done.append(run(command, cwd=folder, environment=environment))
            rows = json.loads(done[0].output)["accepted"]
            seconds = [one.wall_seconds for one in done]
            table[f"{size} {kind}"] = {
                **figures(done),
                "events_per_second": spread([rows / one for one in seconds], 0),
            }
    return table


def step(files: Files, _runs: int) -> dict[str, Any]:
    """A day of a month plan after its events are in."""
    return {size: _inside("step", _STEP_USERS[size]) for size in files}


def counts(files: Files, _runs: int) -> dict[str, Any]:
    """All exact counts of a month, beside a bare numpy pass."""
    return {size: _inside("counts", _STEP_USERS[size]) for size in files}


def races(_files: Files, _runs: int) -> dict[str, Any]:
    """A thousand concurrent releases against one cap."""
    return _inside("races", 1000)


def http(_files: Files, _runs: int) -> dict[str, Any]:
    """Events over HTTP, durable before the answer, with reads beside them."""
    with _data_dir() as (folder, environment):
        return service.measure(_DPDAU, folder, environment)


def stages(files: Files, _runs: int) -> dict[str, Any]:
    """Where the time of an event goes, beside the limit of each stage."""
    table = {}
    for size, paths in files.items():
        for kind in ("parquet", "ndjson"):
            command = [sys.executable, "-m", "benchmarks.stages", str(paths[kind].absolute())]
            done = run(command, cwd=ROOT, environment=os.environ)
            table[f"{size} {kind}"] = json.loads(done.output)
    return table


def spark(files: Files, runs: int) -> dict[str, Any]:
    """The counts of a month on Spark in two threads, beside SQL that is written for them alone."""
    table = {}
    for size, paths in files.items():
        truth = json.loads(paths["truth"].read_text("utf-8"))
        path = str(workload.ordered(paths["parquet"]).absolute())
        command = [sys.executable, "-m", "benchmarks.spark", path, str(runs)]
        done = run(command, cwd=ROOT, environment=os.environ)
        found = json.loads(done.output.splitlines()[-1])
        exact = {metric: list(month.values()) for metric, month in truth["month"].items()}
        assert exact == found["counts"], f"the counts of {size}"
        own, sql = found["programs"]["dpdau"], found["programs"]["spark sql"]
        table[size] = {
            "rows": truth["rows"],
            "users": truth["users"],
            "programs": found["programs"],
            "time_over_sql": round(
                own["wall_seconds"]["median"] / sql["wall_seconds"]["median"], 2
            ),
            "cpu_over_sql": round(own["cpu_seconds"]["median"] / sql["cpu_seconds"]["median"], 2),
            "rows_per_core_second": round(truth["rows"] / own["cpu_seconds"]["median"]),
        }
    return table


def forgetting(_files: Files, _runs: int) -> dict[str, Any]:
    """What counters that forget their visitors make of a month."""
    return salted.measure()


def growth(files: Files, _runs: int) -> dict[str, Any]:
    """How the cost grows with segments and with days of activity."""
    users = _STEP_USERS["M" if "M" in files else "S"] // 10
    return {"segments": _inside("segments", users), "days": _inside("days", users)}


def idle(_files: Files, _runs: int) -> dict[str, Any]:
    """The service when nobody asks, and the shell when nothing is done."""
    with _data_dir() as (folder, environment):
        found = service.idle(_DPDAU, folder, environment)
        helps = [
            run([_DPDAU, "--help"], cwd=folder, environment=environment) for _ in range(_HELP_RUNS)
        ]
    return {**found, "help_seconds": spread([one.wall_seconds for one in helps])}


TASKS: Final[dict[str, Callable[[Files, int], dict[str, Any]]]] = {
    "one-shot": one_shot,
    "bulk": bulk,
    "step": step,
    "counts": counts,
    "stages": stages,
    "growth": growth,
    "spark": spark,
    "races": races,
    "forgetting": forgetting,
    "http": http,
    "idle": idle,
}


def _one_shot(source: str) -> Run:
    """A month from a file, in a fresh process over a fresh data directory."""
    with _data_dir() as (folder, environment):
        run([_DPDAU, "init"], cwd=folder, environment=environment)
        command = [_DPDAU, "release", "--from", source, "--month", workload.MONTH, "--json"]
        return run(
            [*command, "--epsilon", EPSILON, "--delta", DELTA], cwd=folder, environment=environment
        )


def _rival(script: str, *arguments: str) -> Run:
    """Another program, in a fresh process."""
    return run(
        [sys.executable, str(RIVALS / script), *arguments], cwd=RIVALS, environment=os.environ
    )


def _inside(kind: str, size: int) -> dict[str, Any]:
    """A measurement inside one process of the product."""
    done = run(
        [sys.executable, "-m", "benchmarks.product", kind, str(size)],
        cwd=ROOT,
        environment=os.environ,
    )
    found: dict[str, Any] = json.loads(done.output)
    return found


@contextmanager
def _data_dir() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder to run the product in, and its environment: new secrets, nothing of the caller's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    with tempfile.TemporaryDirectory() as name:
        yield (
            Path(name),
            {
                **kept,
                "DATA_DIR": str(Path(name) / "data"),
                "HASH_SALT_SECRET": "b64:" + base64.b64encode(secrets.token_bytes(32)).decode(),
                "SERVICE_API_KEY": secrets.token_hex(16),
            },
        )


def _errors(outputs: Sequence[str], month: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Root mean square error of the released numbers, by metric and together."""
    differences: dict[str, list[float]] = {metric: [] for metric in month}
    for output in outputs:
        for one in json.loads(output):
            exact = month[one["metric"]][one["day"]]
            differences[one["metric"]].append(one["estimate"] - exact)
    arrays = {metric: np.array(some) for metric, some in differences.items()}
    return {
        **{metric: round(_rms([some]), 2) for metric, some in arrays.items()},
        "dau and mau": round(_rms([arrays["dau"], arrays["mau"]]), 2),
        "all": round(_rms(list(arrays.values())), 2),
    }


def _rms(differences: Sequence[Any]) -> float:
    together = np.concatenate(differences)
    return float(np.sqrt((together**2).mean()))


def _circumstances() -> dict[str, Any]:
    """When, on what, and with which versions."""
    git = shutil.which("git")
    commit = ""
    if git is not None:
        asked = [git, "describe", "--always", "--dirty"]
        commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {
            "processor": cpu,
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": platform.platform(terse=True),
            "load": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _VERSIONS},
        },
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
