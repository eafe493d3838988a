"""A user id and an exact count are planted, a full scenario is run, and everything is searched."""

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from dpdau.app import App
from dpdau.cli.root import run
from dpdau.domain import Metric
from dpdau.telemetry import Metrics
from in_process import captured_logs, service
from products import DAY, event, product

CANARY_STEM = "canary-7f3a91d2c4e8"
"""What no way of writing the id changes: nothing in it is ever escaped."""
CANARY_USER = f"{CANARY_STEM}-user@example.org"
CANARY_COUNT = 7919
"""Users, and events, of the planted day: a prime that no setting or date of the scenario has."""
_A_COUNT = re.compile(
    rf"(?<![\w.])({CANARY_COUNT}|{CANARY_COUNT - 1}|{CANARY_COUNT:,}|{CANARY_COUNT - 1:,})"
    r"(?!\w|\.\d*[1-9])"
)
"""The count with and without the user, as a whole number; no part of a digest, id or duration."""
BATCH_EVENTS = 1000
_SQLITE_MAGIC = b"SQLite format 3\x00"


class Offset:
    """Noise that is never 0, so that a published estimate is not the exact count by chance."""

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """A fixed offset."""
        return np.full(size, 3, np.int64)

    discrete_gaussian = discrete_laplace


def leaks(shown: Mapping[str, str], root: Path) -> set[str]:
    """Where the id is, in any text or file; and where a count is, but for the activity store."""
    found = {name for name, text in shown.items() if _has_id(text) or _A_COUNT.search(text)}
    for path in root.rglob("*"):
        if path.is_file():
            text = _readable(path)
            is_store = "activity" in path.relative_to(root).parts
            if _has_id(text) or (not is_store and _A_COUNT.search(text)):
                found.add(str(path.relative_to(root)))
    return found


def _has_id(text: str) -> bool:
    return CANARY_STEM in text


def _readable(path: Path) -> str:
    """The bytes of a file as text; a database also as its rows, where numbers are digits."""
    content = path.read_bytes()
    text = content.decode("latin-1")
    if not content.startswith(_SQLITE_MAGIC):
        return text
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        return "\n".join([text, *database.iterdump()])


def plant(http: httpx.Client) -> list[httpx.Response]:
    """Exactly one event of each of `CANARY_COUNT` users, in batches that no answer adds up."""
    users = [*(f"crowd-{number}" for number in range(CANARY_COUNT - 1)), CANARY_USER]
    headers = {"Content-Type": "application/x-ndjson"}
    answers = []
    for start in range(0, CANARY_COUNT, BATCH_EVENTS):
        batch = [
            event(user, event_id=f"sent-by-{user}", metadata={"note": user})
            for user in users[start : start + BATCH_EVENTS]
        ]
        lines = "\n".join(json.dumps(one) for one in batch)
        answers.append(http.post("/events", content=lines, headers=headers))
    assert CANARY_COUNT == sum(one.json()["accepted"] for one in answers)
    return answers


def drive_http(app: App) -> dict[str, str]:
    """Everything that HTTP answers in a scenario with good, bad and refused requests."""
    day = DAY.isoformat()
    bad = {"user_id": CANARY_USER, "op": "?", "day": day}
    ndjson = {"Content-Type": "application/x-ndjson"}
    plan = {"metric": "dau", "day": day, "segment": f"{CANARY_USER}=x"}
    stranger = {"X-API-Key": CANARY_USER}
    with service(app) as http:
        answers = [
            *plant(http),
            http.get("/metrics"),
            http.post("/event", json={"event": event(CANARY_USER, op="-")}),
            http.post("/event", json={"event": event(CANARY_USER)}),
            http.post("/event", json={"event": bad}),
            http.post("/event", json={"event": {**bad, "op": "+", "day": CANARY_USER}}),
            http.post("/event", json=[CANARY_USER]),
            http.post("/events", content=json.dumps(bad) + "\n{" + CANARY_USER, headers=ndjson),
            http.post(
                "/events", json=[event(CANARY_USER)], headers={"Idempotency-Key": CANARY_USER}
            ),
            http.post("/events", json=[], headers={"Idempotency-Key": CANARY_USER * 9}),
            http.post("/event", json={"event": event(CANARY_USER)}, headers=stranger),
            http.get(f"/dau/{CANARY_USER}"),
            http.get(f"/dau/{day}"),
            http.get("/wau", params={"end": day}),
            http.get("/mau", params={"end": day}),
            http.get("/mau", params={"end": day, "window": 99}),
            http.get("/growth", params={"end": day}),
            http.get("/growth", params={"end": day, "segment": CANARY_USER}),
            http.get("/mau", params={"end": day, "segment": CANARY_USER}),
            http.get(f"/dau/{day}", params={"segment": f"{CANARY_USER}=x"}),
            http.get("/series", params={"metrics": "dau", "from": day, "to": day}),
            http.get("/series", params={"from": day, "to": day, "segment": f"{CANARY_USER}=x"}),
            http.get("/budget/dau", params={"day": day}),
            http.get(f"/budget/{CANARY_USER}"),
            http.get("/budget/dau", params={"day": CANARY_USER}),
            http.post("/plans", json=plan),
            http.get("/releases"),
            http.get("/plans"),
            http.delete(f"/users/{CANARY_USER}", headers=stranger),
            http.delete(f"/users/{CANARY_USER}"),
            http.get(f"/erasures/{CANARY_USER}"),
            http.get(f"/nowhere/{CANARY_USER}"),
            http.get("/readyz"),
            http.get("/metrics"),
        ]
    assert {202, 200, 401, 404, 422} == {one.status_code for one in answers}
    return {
        f"{number}: {one.request.method} {one.request.url}": f"{one.headers}\n{one.text}"
        for number, one in enumerate(answers)
    }


def drive_command_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that see the id: a file with it, an erasure of it, and mistakes with it."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("DATA_DIR", str(root / "data"))
    source = root / "sent.ndjson"
    lines = [event(CANARY_USER), {**event(CANARY_USER), "op": "?"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert 0 == run(["ingest", "--from", str(source)])
    assert 0 == run(["erase", CANARY_USER, "--json"])
    assert 0 == run(["dau", "--day", DAY.isoformat(), "--json"])
    assert 2 == run(["dau", "--day", CANARY_USER])
    source.unlink()


def test_no_id_anywhere_and_no_count_outside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The id is in no response, log, metric, output or file; the count only in the store."""
    with captured_logs() as log:
        with product(tmp_path, noise=Offset()) as app:
            app.metrics = Metrics()
            answers = drive_http(app)
            table = app.exact({Metric.DAU: 1}, DAY, DAY, reason="a test")
            assert [CANARY_COUNT - 1] == table[Metric.DAU].tolist()
        # A command of a later day drops what is old, so the files are searched before as well.
        assert set() == leaks(answers, tmp_path)
        drive_command_line(tmp_path, monkeypatch)
    out, err = capfd.readouterr()
    # The command's own usage error names what was typed, on the terminal where it was typed.
    err = err.replace(f"found '{CANARY_USER}'", "")

    assert '"route":"/events"' in log.getvalue()
    assert '"estimate"' in out
    assert sum(path.is_file() for path in tmp_path.rglob("*")) > 5
    assert set() == leaks({**answers, "log": log.getvalue(), "out": out, "err": err}, tmp_path)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Planted leaks are found by the search of the scenario, and nothing else is."""
    store = tmp_path / "data" / "activity"
    store.mkdir(parents=True)
    (store / "count-in-the-store").write_text(f"{CANARY_COUNT}")
    (store / "id-in-the-store").write_bytes(b"\x00" + CANARY_USER.encode() + b"\xff")
    (tmp_path / "id.log").write_text(f"user {CANARY_USER}")
    (tmp_path / "count.log").write_text(f'{{"count": {CANARY_COUNT - 1}}}')
    (tmp_path / "clean.log").write_text(f"digest a{CANARY_COUNT}f, took 0.{CANARY_COUNT} s")
    for name, value in (("count.sqlite", CANARY_COUNT), ("clean.sqlite", CANARY_COUNT + 3)):
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute("CREATE TABLE counts (value INTEGER)")
            database.execute("INSERT INTO counts VALUES (?)", (value,))
            database.commit()
    shown = {
        "counter": f'events_total{{outcome="accepted"}} {CANARY_COUNT}.0',
        "member": f'{{"exact_value":{CANARY_COUNT}}}',
        "for people": f"{CANARY_COUNT:,} users",
        "id": httpx.URL("http://x/", params={"q": CANARY_USER}).query.decode(),
        "clean": f"{CANARY_COUNT + 3} 1{CANARY_COUNT} {CANARY_COUNT}1 rel-{CANARY_COUNT}ab 0.7919",
    }

    assert {
        "counter",
        "member",
        "for people",
        "id",
        "id.log",
        "count.log",
        "count.sqlite",
        "data/activity/id-in-the-store",
    } == leaks(shown, tmp_path)
