"""The load harness: what it reads, what it works out, and a short run on a service of its own."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REPORTS = {
    "load_stats.csv",
    "load_stats_history.csv",
    "load_failures.csv",
    "load.html",
    "summary.json",
    "summary.txt",
    "service.log",
}


@pytest.fixture(autouse=True)
def _harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can be imported, and no option of the machine reaches it."""
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in os.environ if name.startswith("LOAD_")]:
        monkeypatch.delenv(name)


def test_options_come_from_the_environment() -> None:
    """Each variable is read, and handed on unchanged."""
    from load.options import Options

    given = {
        "LOAD_USERS": "7",
        "LOAD_SPAWN": "3.5",
        "LOAD_RUNTIME": "1h30m",
        "LOAD_HOST": "http://127.0.0.1:9",
        "LOAD_API_KEY": "k",
        "LOAD_TEST_SEED": "4",
        "LOAD_BATCH": "250",
        "LOAD_REPORTS": "out",
    }

    assert given == Options.of(given).environment()
    assert Options() == Options.of({"LOAD_USERS": "", "UNKNOWN": "1"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"LOAD_USERS": "many"},
        {"LOAD_USERS": "0"},
        {"LOAD_BATCH": "200001"},
        {"LOAD_RUNTIME": "soon"},
        {"LOAD_HOST": "http://127.0.0.1:9"},
    ],
)
def test_options_that_mean_nothing(wrong: dict[str, str]) -> None:
    """A value out of range, and a service without a key, are refused by name."""
    from load.options import Options

    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.of(wrong)


def test_the_same_seed_gives_the_same_events() -> None:
    """Each sender has a stream of its own; all its events are of the last days."""
    from load.events import DAYS, Stream

    today = dt.date(2026, 3, 15)
    one, again, other = (Stream(1, sender, today) for sender in (0, 0, 1))
    first = one.batch(500)
    events = [json.loads(line) for line in first.split(b"\n")]
    days = {dt.date.fromisoformat(event["day"]) for event in events}

    assert first == again.batch(500) != other.batch(500)
    assert 500 == len(events)
    assert {today - dt.timedelta(days=back) for back in range(DAYS)} == days


def measured(**changes: Any) -> dict[str, Any]:
    """Figures of a test that reached the target."""
    times = {"write": [float(ms) for ms in range(1, 201)], "read": [2.0]}
    errors = {"write": 0, "read": 0}
    return {"times_ms": times, "errors": errors, "seconds": 2.0, "events": 20_000, **changes}


def test_a_summary_states_rate_errors_and_latencies() -> None:
    """Events in a second, and the nearest-rank quantiles of every request."""
    from load.summary import Summary

    body = Summary.of(measured()).to_json()

    assert (10_000.0, 0.0, []) == (body["events_per_second"], body["error_rate"], body["faults"])
    assert {"requests": 200, "errors": 0, "p50_ms": 100.0, "p99_ms": 198.0} == body["writes"]
    assert {"requests": 1, "errors": 0, "p50_ms": 2.0, "p99_ms": 2.0} == body["reads"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"events": 19_999}, "below 10,000 events/s"),
        ({"errors": {"write": 0, "read": 1}}, "1 requests failed"),
        ({"seconds": 0.0, "events": 0, "times_ms": {"write": [], "read": []}}, "below"),
    ],
)
def test_a_summary_names_what_is_missed(changes: dict[str, Any], fault: str) -> None:
    """Too few events and any error are faults."""
    from load.summary import Summary

    (found,) = Summary.of(measured(**changes)).faults

    assert found.startswith(fault)


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    """Locust runs against a service that is started for it and is gone afterwards."""
    reports = tmp_path / "reports"
    options = {
        "LOAD_USERS": "4",
        "LOAD_SPAWN": "4",
        "LOAD_RUNTIME": "3s",
        "LOAD_BATCH": "50",
        "LOAD_REPORTS": str(reports),
    }
    done = subprocess.run(
        [sys.executable, "-m", "load"],
        cwd=ROOT,
        env={**os.environ, **options, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    log = reports / "service.log"
    assert done.returncode in {0, 1}, f"{done.stderr}\n{log.exists() and log.read_text()[-2000:]}"
    body = json.loads((reports / "summary.json").read_text())

    assert REPORTS <= {path.name for path in reports.iterdir()}
    assert (0, 0) == (body["writes"]["errors"], body["reads"]["errors"])
    assert body["events"] == 50 * body["writes"]["requests"] > 0
    assert body["writes"]["p50_ms"] <= body["writes"]["p99_ms"]
    assert bool(body["faults"]) is bool(done.returncode)
    assert (reports / "summary.txt").read_text() in done.stdout
    assert "<html" in (reports / "load.html").read_text()
    assert "write: POST /events" in (reports / "load_stats.csv").read_text()
    assert '"event": "stopped"' in log.read_text()
    assert [reports] == [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_service_that_does_not_answer(tmp_path: Path) -> None:
    """Every request fails, and the exit code says so."""
    options = {
        "LOAD_HOST": "http://127.0.0.1:9",
        "LOAD_API_KEY": "k",
        "LOAD_USERS": "1",
        "LOAD_RUNTIME": "1s",
        "LOAD_REPORTS": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "load"],
        cwd=ROOT,
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 1 == done.returncode, done.stderr
    assert "MISSED" in done.stdout
