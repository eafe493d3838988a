"""Logs are JSON lines, and refuse what is private."""

import io
import json
import logging
from pathlib import Path

import pytest

from dpdau.domain import BoundedCount, ContributionBounds, PrivateValueError, Unit
from dpdau.telemetry import Metrics, configure_logs, log, refuse_private
from products import DAY, product

COUNT = BoundedCount(7, ContributionBounds(), Unit.USER)


@pytest.fixture(autouse=True)
def _restore_root_logger():
    """The root logger's handlers are put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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


def test_a_release_is_counted_with_its_budget(tmp_path: Path) -> None:
    """One more release of its metric, and the share of its budget that is spent."""
    metrics = Metrics()
    with product(tmp_path) as app:
        metrics.released("new", app.growth(DAY).budget, replayed=False)

    names = {"metric": "new", "replayed": "false"}
    assert 1 == metrics.registry.get_sample_value("dpdau_releases_total", names)
    names = {"metric": "mau", "period": "2026-03"}
    share = metrics.registry.get_sample_value("dpdau_budget_spent_ratio", names)
    assert share == pytest.approx(0.5 / 3.5)


def test_nothing_but_the_product_is_counted() -> None:
    """The metrics are a closed list; none is of events, and none of the process."""
    assert {
        "dpdau_releases",
        "dpdau_refusals",
        "dpdau_erasures",
        "dpdau_budget_spent_ratio",
    } == {family.name for family in Metrics().registry.collect()}
