"""Alert rules and dashboard: Prometheus' own tool takes and tests them, and they ask for metrics
that a running service has.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import go_programs
from dpdau.app import App
from dpdau.app.alerts import Alerts
from dpdau.app.watch import Watch
from dpdau.telemetry import Metrics
from in_process import transport
from products import NOW, ZeroNoise, product_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "rules.yml"
TESTS = FOLDER / "tests.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "dpdau.json"
pytestmark = pytest.mark.xdist_group("promtool")


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Prometheus' own tool."""
    return go_programs.promtool()


def run(promtool: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One run of it."""
    return subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def rules() -> dict[str, dict[str, Any]]:
    """Every rule by its name."""
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def expressions() -> list[str]:
    """What the rules and the panels ask for."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*asked, *(rule["expr"] for rule in rules().values())]


@pytest.fixture
def scraped(tmp_path: Path) -> set[str]:
    """The names of all samples that `/metrics` of a running service may have."""
    rpc = pytest.importorskip("dpdau.rpc.server")
    metrics = Metrics()
    app = App.open(
        product_settings(tmp_path), clock=lambda: NOW, noise=ZeroNoise(), metrics=metrics
    )
    with app.closing(), transport(app) as way, httpx.Client(transport=way) as client:
        alerts = Alerts({}, clock=lambda: NOW)
        Watch(app, metrics=metrics, alerts=alerts, owns=True, opening=True).turn()
        app.attach(rpc.RpcServer(app, host="127.0.0.1", port=0))
        text = client.get("http://here/metrics").text
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        f"{family.name}{ending}"
        for family in text_string_to_metric_families(text)
        for ending in endings[family.type]
    }


def test_prometheus_takes_the_rules(promtool: Path) -> None:
    """Prometheus' own tool finds no fault in rules and configuration."""
    checked = run(promtool, "check", "rules", RULES)
    configured = run(promtool, "check", "config", FOLDER / "prometheus.yml")

    assert (0, 0) == (checked.returncode, configured.returncode), checked.stderr + configured.stderr
    assert f"{len(rules())} rules found" in checked.stdout
    assert f"{len(rules())} rules found" in configured.stdout


def test_each_rule_fires_and_stays_silent(promtool: Path) -> None:
    """The tests of the rules pass, and each rule is seen firing in one of them."""
    done = run(promtool, "test", "rules", TESTS)
    fired = {
        name
        for case in yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
        for check in case["promql_expr_test"]
        for sample in check["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }

    assert 0 == done.returncode, done.stdout + done.stderr
    assert set(rules()) == fired


def test_a_rule_that_is_wrong_would_be_found(promtool: Path, tmp_path: Path) -> None:
    """What the test above relies on: a rule that fires too early, or not at all, fails it."""
    (tmp_path / "tests.yml").write_bytes(TESTS.read_bytes())
    text = RULES.read_text("utf-8")
    for wrong in (text.replace(">= 10", ">= 9"), text.replace("> 26 * 3600", "> 27 * 3600")):
        assert wrong != text
        (tmp_path / "rules.yml").write_text(wrong, "utf-8")
        assert 0 != run(promtool, "test", "rules", tmp_path / "tests.yml").returncode


@pytest.mark.parametrize("name", sorted(rules()))
def test_each_rule_says_what_to_do(name: str) -> None:
    """A rule has a severity, a summary, a description, and a section of the runbook."""
    rule = rules()[name]

    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    assert f"docs/runbook.md#{name.lower()}" == rule["annotations"]["runbook_url"]


def test_nothing_asks_for_a_metric_that_is_not_there(scraped: set[str]) -> None:
    """Each metric of a rule, of a panel and of a test of the rules is one that a scrape has."""
    tested = [
        series["series"]
        for case in yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
        for series in case["input_series"]
    ]
    own = re.compile(r"\b(?:dpdau|http|grpc|dp)_\w+")
    asked = {name for text in (*expressions(), *tested) for name in own.findall(text)}

    assert set() == asked - scraped
    assert {"dpdau_ledger_sound", "grpc_calls_total"} <= asked


def test_everything_that_is_told_is_shown(scraped: set[str]) -> None:
    """The dashboard has a panel for each metric of the product."""
    shown = " ".join(expressions())
    twins = ("dp_request_latency_ms_p", "_sum", "_count", "_created")

    assert [] == [
        name
        for name in sorted(scraped)
        if name not in shown and not (name.startswith(twins) or name.endswith(twins))
    ]


def test_the_chart_and_compose_have_the_same_rules() -> None:
    """The chart holds the one file, and compose.yaml mounts it where Prometheus looks."""
    chart = ROOT / "deploy" / "helm" / "dpdau" / "files" / "rules.yml"
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    mounted = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["prometheus"]

    assert RULES.read_bytes() == chart.read_bytes()
    assert ["rules.yml"] == config["rule_files"]
    assert "./deploy/prometheus/rules.yml:/etc/prometheus/rules.yml:ro" in mounted["volumes"]
