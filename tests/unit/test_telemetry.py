"""Logs are JSON lines, and refuse what is private."""

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog

from dpdau import telemetry
from dpdau.domain import BoundedCount, ContributionBounds, PrivateValueError, Unit
from dpdau.telemetry import (
    Metrics,
    configure_logs,
    log,
    log_line,
    logs_in_batches,
    refuse_private,
    write_logs,
)

COUNT = BoundedCount(7, ContributionBounds(), Unit.USER)


@pytest.fixture(autouse=True)
def _restore_root_logger():
    """The root logger's handlers are put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_to_import_the_product_configures_nothing() -> None:
    """A program that brings it along logs as before."""
    ask = "import dpdau.app, dpdau.client, structlog; print(structlog.is_configured())"
    child = [sys.executable, "-c", ask]
    done = subprocess.run(child, check=True, capture_output=True, text=True, timeout=60)
    assert "False" == done.stdout.strip()


def test_where_nothing_is_configured_lines_go_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard output is for what a command prints; what a program configures comes first."""
    logger, stream = log("room"), io.StringIO()
    logger.warning("before")
    out, err = capsys.readouterr()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    logger.warning("after")
    structlog.reset_defaults()

    assert ("", True) == (out, "before" in err)
    assert ("after" in stream.getvalue(), "before" in stream.getvalue()) == (True, False)
    assert ("", "") == tuple(capsys.readouterr())


def test_each_line_is_one_json_object() -> None:
    """Lines of ours and of libraries have the same form."""
    stream = io.StringIO()
    configure_logs(stream=stream)

    log("room").info("counted", outcome="accepted", count=3)
    logging.getLogger("library").warning("hello %s", "there")

    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ("counted", "accepted", 3) == (first["event"], first["outcome"], first["count"])
    assert ("hello there", "warning") == (second["event"], second["level"])


@pytest.mark.parametrize("value", [COUNT, [COUNT], (1, COUNT)])
def test_a_private_noun_is_refused(value: object) -> None:
    """A private noun in a log call raises, also inside a list."""
    with pytest.raises(PrivateValueError):
        refuse_private(None, "info", {"event": "x", "value": value})


def test_metrics_are_kept_per_registry() -> None:
    """Two registries do not share counters."""
    one, two = Metrics(), Metrics()
    one.erasures.inc(5)

    assert 5 == one.registry.get_sample_value("dpdau_erasures_total")
    assert 0 == two.registry.get_sample_value("dpdau_erasures_total")


def test_a_release_is_counted_and_shows_no_budget() -> None:
    """One more release of its metric; a replay of a month that is over brings no budget back."""
    metrics = Metrics()
    metrics.released("new", replayed=True)

    names = {"metric": "new", "replayed": "true"}
    assert 1 == metrics.registry.get_sample_value("dpdau_releases_total", names)
    assert [] == [one.labels for family in metrics.budget_spent.collect() for one in family.samples]


def test_a_corrupt_ledger_is_counted_from_zero() -> None:
    """The first failure is an increase, whichever transaction it was in."""
    metrics = Metrics()
    known = metrics.registry.get_sample_value
    before = known("dpdau_ledger_corrupt_total")
    metrics.transacted("head", "done", 0.1)
    metrics.transacted("step", "ledger_corrupt", 0.1)

    assert (0, 1) == (before, known("dpdau_ledger_corrupt_total"))


def test_nothing_but_the_product_is_counted() -> None:
    """The metrics are a closed list; none is of events, and none of the process."""
    assert {
        "dpdau_releases",
        "dpdau_refusals",
        "dpdau_erasures",
        "dpdau_failures",
        "dpdau_budget_spent_ratio",
        "dpdau_kafka_lag",
        "dpdau_ledger_corrupt",
        "dpdau_ledger_transactions",
        "dpdau_ledger_transaction_seconds",
    } == {family.name for family in Metrics().registry.collect()}


def test_a_line_of_every_request_is_like_any_other() -> None:
    """Written by hand at a quarter of the cost: the same members in the same order and form."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    facts = {"method": "POST", "status": 202, "duration_ms": 1.25, "caller": None, "what": "é"}

    log("api").info("request", **facts)
    log_line("api", "request", facts)

    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert list(first) == list(second)
    assert len(first.pop("timestamp")) == len(second.pop("timestamp"))
    assert first == second


def test_a_line_of_every_request_keeps_to_the_level() -> None:
    """Below the level nothing is written."""
    stream = io.StringIO()
    configure_logs(stream=stream, level="WARNING")
    log_line("api", "request", {})

    assert "" == stream.getvalue()


def test_lines_in_batches_are_all_written_in_order() -> None:
    """Lines wait for a thread, are all there at the end, and go straight through afterwards."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    with logs_in_batches():
        for number in range(500):
            log_line("api", "request", {"number": number})
        write_logs()
        assert 500 == len(stream.getvalue().splitlines())
        log("api").error("last")
    log("api").info("after")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [*range(500), None, None] == [one.get("number") for one in lines]
    assert ["last", "after"] == [one["event"] for one in lines[-2:]]


def test_lines_that_nobody_takes_are_written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines do not pile up in memory where the thread cannot follow."""
    monkeypatch.setattr(telemetry, "LOG_LINES_MAX", 10)
    monkeypatch.setattr(telemetry, "LOG_SECONDS", 1000.0)
    stream = io.StringIO()
    configure_logs(stream=stream)
    with logs_in_batches():
        for _ in range(25):
            log_line("api", "request", {})
        assert 20 == len(stream.getvalue().splitlines())
