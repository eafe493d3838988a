"""Each verb through every front: Python, HTTP, gRPC, and the command line by itself and over HTTP.

The same questions are asked in the same order of four products with the same events, a standing
clock and no noise; results and errors must be the same.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dpdau.client
from dpdau.app import App, Verbs
from dpdau.cli.root import run
from dpdau.client import Client
from dpdau.domain import Metric, Segment, SeriesView, month_of
from dpdau.errors import DpdauError, error_class, outcome
from dpdau.ingest.event import decode_objects
from in_process import captured_logs, transport
from products import API_KEY, DAY, NOW, ZeroNoise, event, product, product_settings
from rpc_service import RpcVerbs, rpc_service

URL = "http://127.0.0.1"
IOS = Segment("platform", "ios")
BEFORE = DAY - dt.timedelta(days=1)
OPEN_DAY = NOW.date()
SETTINGS = {"DIMENSIONS": "platform", "DAU_BUDGET_TOTAL": 0.6, "MAU_BUDGET_TOTAL": 1.25}
MONTH = month_of(DAY)
RANDOM_FIELDS = {"release_id", "erasure_id"}
RANGE = ["--from", BEFORE.isoformat(), "--to", DAY.isoformat()]
EVENTS = [
    event("u1", metadata={"platform": "ios"}),
    event("u2"),
    event("u2", BEFORE),
    event(""),
    event("u3", op="?"),
]


@dataclass(frozen=True)
class Question:
    """One question, as a call of a verb and as a command; a command that is None does not exist."""

    ask: Callable[[Verbs], Any]
    command: list[str] | None
    code: str | None = None


def days(**ends: dt.date) -> list[str]:
    """Options with days as text."""
    return [part for name, day in ends.items() for part in (f"--{name}", day.isoformat())]


QUESTIONS = {
    "price": Question(
        lambda verbs: verbs.price(Metric.MAU, DAY, window_days=28).to_json(),
        ["mau", *days(end=DAY), "--window", "28", "--dry-run"],
    ),
    "dau": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY).to_json(), ["dau", *days(day=DAY)]
    ),
    "dau again": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY).to_json(), ["dau", *days(day=DAY)]
    ),
    "dau of a segment": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY, segment=IOS).to_json(),
        ["dau", *days(day=DAY), "--segment", str(IOS)],
    ),
    "dau over budget": Question(
        lambda verbs: verbs.release(Metric.DAU, BEFORE).to_json(),
        ["dau", *days(day=BEFORE)],
        "budget_exhausted",
    ),
    "dau over budget, anew": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY, fresh=True).to_json(),
        ["dau", *days(day=DAY), "--fresh"],
        "budget_exhausted",
    ),
    "wau": Question(
        lambda verbs: verbs.release(Metric.WAU, DAY).to_json(), ["wau", *days(end=DAY)]
    ),
    "mau": Question(
        lambda verbs: verbs.release(Metric.MAU, DAY).to_json(), ["mau", *days(end=DAY)]
    ),
    "mau anew": Question(
        lambda verbs: verbs.release(Metric.MAU, DAY, fresh=True).to_json(),
        ["mau", *days(end=DAY), "--fresh"],
    ),
    "mau of 28 days": Question(
        lambda verbs: verbs.release(Metric.MAU, DAY, window_days=28).to_json(),
        ["mau", *days(end=DAY), "--window", "28"],
    ),
    "mau of 65 days": Question(
        lambda verbs: verbs.release(Metric.MAU, DAY, window_days=65).to_json(),
        ["mau", *days(end=DAY), "--window", "65"],
        "invalid_plan",
    ),
    "dau of a week": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY, window_days=7).to_json(), None, "invalid_plan"
    ),
    "an unknown dimension": Question(
        lambda verbs: verbs.release(Metric.DAU, DAY, segment=Segment("color", "red")).to_json(),
        ["dau", *days(day=DAY), "--segment", "color=red"],
        "invalid_plan",
    ),
    "an open day": Question(
        lambda verbs: verbs.release(Metric.DAU, OPEN_DAY).to_json(),
        ["dau", *days(day=OPEN_DAY)],
        "not_ready",
    ),
    "a day outside the calendar": Question(
        lambda verbs: verbs.release(Metric.DAU, dt.date.max).to_json(),
        ["dau", *days(day=dt.date.max)],
        "invalid_plan",
    ),
    "growth": Question(lambda verbs: verbs.growth(DAY).to_json(), ["growth", *days(end=DAY)]),
    "growth again": Question(lambda verbs: verbs.growth(DAY).to_json(), ["growth", *days(end=DAY)]),
    "growth of one day, anew": Question(
        lambda verbs: verbs.growth(DAY, window_days=1, fresh=True).to_json(),
        ["growth", *days(end=DAY), "--window", "1", "--fresh"],
    ),
    "growth of 65 days": Question(
        lambda verbs: verbs.growth(DAY, window_days=65).to_json(),
        ["growth", *days(end=DAY), "--window", "65"],
        "invalid_plan",
    ),
    "growth of an open day": Question(
        lambda verbs: verbs.growth(OPEN_DAY).to_json(), ["growth", *days(end=OPEN_DAY)], "not_ready"
    ),
    "growth over budget": Question(
        lambda verbs: verbs.growth(DAY, window_days=2).to_json(),
        ["growth", *days(end=DAY), "--window", "2"],
        "budget_exhausted",
    ),
    "series": Question(
        lambda verbs: [one.to_json() for one in verbs.series(list(Metric), BEFORE, DAY)],
        ["series", *RANGE],
    ),
    "series of a segment": Question(
        lambda verbs: [
            one.to_json() for one in verbs.series([Metric.DAU], BEFORE, DAY, segment=IOS)
        ],
        ["series", "--metrics", "dau", "--segment", str(IOS), *RANGE],
    ),
    "series backwards": Question(
        lambda verbs: [one.to_json() for one in verbs.series([Metric.DAU], DAY, BEFORE)],
        ["series", "--from", DAY.isoformat(), "--to", BEFORE.isoformat()],
        "invalid_plan",
    ),
    "budget": Question(lambda verbs: verbs.budget("mau").to_json(), ["budget", "mau"]),
    "budget of a month": Question(
        lambda verbs: verbs.budget("dau", dt.date(2026, 1, 9)).to_json(),
        ["budget", "dau", "--day", "2026-01-09"],
    ),
    "budget of nothing": Question(
        lambda verbs: verbs.budget("yau").to_json(), ["budget", "yau"], "invalid_plan"
    ),
    "price of a month": Question(
        lambda verbs: verbs.price_month(MONTH).to_json(), ["plan", "price", MONTH]
    ),
    "a month that is not open": Question(
        lambda verbs: verbs.month(MONTH).to_json(), ["plan", "show", MONTH], "not_found"
    ),
    "a month is opened": Question(
        lambda verbs: verbs.open_month(MONTH).to_json(), ["plan", "open", MONTH]
    ),
    "a month that is open": Question(
        lambda verbs: verbs.month(MONTH).to_json(), ["plan", "show", MONTH]
    ),
    "no month": Question(
        lambda verbs: verbs.price_month("march").to_json(),
        ["plan", "price", "march"],
        "invalid_plan",
    ),
    "budget of the plan": Question(
        lambda verbs: verbs.budget("plan", DAY).to_json(),
        ["budget", "plan", *days(day=DAY)],
    ),
    "series as a view": Question(
        lambda verbs: [
            one.to_json()
            for one in verbs.series([Metric.DAU], BEFORE, DAY, view=SeriesView.CONSISTENT)
        ],
        ["series", "--metrics", "dau", "--view", "consistent", *RANGE],
    ),
    "erase": Question(lambda verbs: verbs.erase("u2").to_json(), ["erase", "u2"]),
    "erase again": Question(lambda verbs: verbs.erase("u2").to_json(), ["erase", "u2"]),
    "erase nobody": Question(
        lambda verbs: verbs.erase("").to_json(), ["erase", ""], "invalid_event"
    ),
    "erase too long an id": Question(
        lambda verbs: verbs.erase("x" * 257).to_json(), ["erase", "x" * 257], "invalid_event"
    ),
    "a receipt of nothing": Question(
        lambda verbs: verbs.erasure("nothing").to_json(), None, "not_found"
    ),
    "wau after the erasure": Question(
        lambda verbs: verbs.release(Metric.WAU, BEFORE).to_json(), ["wau", *days(end=BEFORE)]
    ),
}
Results = dict[str, Any]


def without_random(body: Any) -> Any:
    """A result as JSON, without the fields that are drawn anew each time."""
    body = json.loads(json.dumps(body))
    if isinstance(body, list):
        return [without_random(one) for one in body]
    if isinstance(body, dict):
        return {
            key: without_random(value) for key, value in body.items() if key not in RANDOM_FIELDS
        }
    return body


def error_of(code: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What counts of an error: its code, its exit code, and the budget if it has one."""
    leaf = error_class(code)
    assert leaf is not None
    return {
        "code": code,
        "exit_code": outcome(leaf("")).exit_code,
        "budget": without_random(facts.get("budget")),
    }


def through_verbs(verbs: Verbs, app: App) -> Results:
    """Every question by a call."""
    decoded = decode_objects(EVENTS, rules=app.rules())
    results = {"ingest": without_random(verbs.ingest(decoded, batch_id="march:0").to_json())}
    results["ingest again"] = without_random(verbs.ingest(decoded, batch_id="march:0").to_json())
    for name, question in QUESTIONS.items():
        try:
            results[name] = without_random(question.ask(verbs))
        except DpdauError as error:
            results[name] = error_of(error.code, error.facts)
    return results


def through_commands(root: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> Results:
    """Every question by a command with `--json`."""
    source = root / "events.ndjson"
    source.write_text("".join(json.dumps(one) + "\n" for one in EVENTS))
    ingest = ["ingest", "--from", str(source), "--batch-id", "march"]
    commands = {"ingest": ingest, "ingest again": ingest} | {
        name: question.command for name, question in QUESTIONS.items() if question.command
    }
    results = {}
    for name, command in commands.items():
        capsys.readouterr()
        exit_code = run([*command, *options, "--json"])
        shown = capsys.readouterr()
        if exit_code == 0:
            results[name] = without_random(json.loads(shown.out))
        else:
            problem = json.loads(shown.err.splitlines()[-1])
            results[name] = {**error_of(problem["code"], problem), "exit_code": exit_code}
    return results


@contextmanager
def standing_app(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[None]:
    """Commands that open the data directory of `root` with the tests' clock and no noise."""
    product_settings(root, **SETTINGS)
    opened = App.open
    monkeypatch.setattr(
        App,
        "open",
        lambda *args, **more: opened(*args, **more, clock=lambda: NOW, noise=ZeroNoise()),
    )
    monkeypatch.chdir(root)
    monkeypatch.setenv("DATA_DIR", str(root / "data"))
    yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the app answers in this process."""
    with product(tmp_path_factory.mktemp("python"), **SETTINGS) as app:
        return through_verbs(app, app)


def test_the_questions_have_the_answers_that_are_meant(expected: Results) -> None:
    """Each question gives a result, or the error that is written beside it."""
    found = {name: expected[name].get("code") for name in QUESTIONS if question_is_single(name)}

    assert {name: QUESTIONS[name].code for name in found} == found
    assert (3, 2) == (expected["ingest"]["accepted"], expected["ingest"]["rejected_count"])
    assert 3 == expected["ingest again"]["duplicate"]
    assert (2, 1) == (expected["dau"]["estimate"], expected["dau of a segment"]["estimate"])
    assert 0 == expected["wau after the erasure"]["estimate"]
    assert [1, 1, 0, 0] == [
        expected["growth of one day, anew"][name]["estimate"]
        for name in ("new", "retained", "resurrected", "churned")
    ]
    assert 5 == len(expected["series"]) + len(expected["series of a segment"])


def question_is_single(name: str) -> bool:
    """Whether the result of a question is one object."""
    return not name.startswith("series") or QUESTIONS[name].code is not None


def test_http_answers_as_python_does(tmp_path: Path, expected: Results) -> None:
    """The typed client gives the same results and the same errors."""
    with (
        product(tmp_path, **SETTINGS) as app,
        transport(app) as way,
        Client(URL, API_KEY, transport=way) as client,
    ):
        assert expected == through_verbs(client, app)


def test_grpc_answers_as_python_does(tmp_path: Path, expected: Results) -> None:
    """The gRPC service gives the same results and the same errors."""
    with product(tmp_path, **SETTINGS) as app, rpc_service(app) as stub:
        assert expected == through_verbs(RpcVerbs(stub, EVENTS), app)


def test_the_command_line_answers_as_python_does(
    tmp_path: Path,
    expected: Results,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command that opens the data directory gives the same results and errors."""
    with standing_app(monkeypatch, tmp_path):
        found = through_commands(tmp_path, capsys, [])

    assert {name: expected[name] for name in found} == found


def test_the_command_line_over_http_answers_as_python_does(
    tmp_path: Path,
    expected: Results,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command with `--url` gives the same results and errors."""
    with captured_logs(), product(tmp_path, **SETTINGS) as app, transport(app) as way:
        monkeypatch.setattr(dpdau.client, "Client", partial(Client, transport=way))
        monkeypatch.chdir(tmp_path)
        found = through_commands(tmp_path, capsys, ["--url", URL])

    assert {name: expected[name] for name in found} == found
