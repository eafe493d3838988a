"""A user id and an exact count are planted, a full scenario is run, and everything is searched."""

import datetime as dt
import json
import logging
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.cli.root import run
from dpdau.domain import Metric
from in_process import service
from products import DAY, event, product, send

CANARY_USER = "canary-7f3a91d2c4e8-user@example.org"
CANARY_COUNT = 7919
"""Users of the planted day: a prime that no setting, id or date of the scenario has."""


def plant(app: App) -> None:
    """The canary among exactly `CANARY_COUNT` users of one day, retracted and seen again."""
    crowd = [event(f"crowd-{number}") for number in range(CANARY_COUNT - 1)]
    mine = event(CANARY_USER, event_id=f"sent-by-{CANARY_USER}", metadata={"note": CANARY_USER})
    send(app, [*crowd, mine, event(CANARY_USER, op="-"), event(CANARY_USER)])


def drive_http(app: App) -> list[str]:
    """Everything that HTTP answers in a scenario with good, bad and refused requests."""
    day = DAY.isoformat()
    bad = {"user_id": CANARY_USER, "op": "?", "day": day}
    ndjson = {"Content-Type": "application/x-ndjson"}
    with service(app) as http, service(app, key=CANARY_USER) as stranger:
        answers = [
            http.post("/event", json={"event": event(CANARY_USER)}),
            http.post("/event", json={"event": bad}),
            http.post("/event", json={"event": {**bad, "op": "+", "day": CANARY_USER}}),
            http.post("/event", json=[CANARY_USER]),
            http.post("/events", content=json.dumps(bad) + "\n{" + CANARY_USER, headers=ndjson),
            stranger.post("/event", json={"event": event(CANARY_USER)}),
            http.get(f"/dau/{CANARY_USER}"),
            http.get(f"/dau/{day}"),
            http.get("/wau", params={"end": day}),
            http.get("/mau", params={"end": day}),
            http.get("/mau", params={"end": day, "window": 99}),
            http.get("/mau", params={"end": day, "segment": CANARY_USER}),
            http.get("/series", params={"metrics": "dau", "from": day, "to": day}),
            http.get("/budget/dau", params={"day": day}),
            http.get("/releases"),
            http.get("/plans"),
            stranger.delete(f"/users/{CANARY_USER}"),
            http.delete(f"/users/{CANARY_USER}"),
            http.get(f"/erasures/{CANARY_USER}"),
            http.get(f"/nowhere/{CANARY_USER}"),
            http.get("/metrics"),
        ]
    assert {202, 200, 401, 404, 422} <= {one.status_code for one in answers}
    return [f"{one.headers}\n{one.text}" for one in answers]


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The id is in no response, log, metric, output or file; the count in no file or answer."""
    caplog.set_level(logging.DEBUG)
    # The test's own client would log the URLs that it asks for.
    caplog.set_level(logging.WARNING, logger="httpx")
    noisy = _Offset()
    with product(tmp_path, noise=noisy) as app:
        plant(app)
        for metric in Metric:
            app.release(metric, DAY)
        answers = drive_http(app)
        table = app.exact({Metric.DAU: 1}, DAY, DAY, reason="a test")
        assert [CANARY_COUNT - 1] == table[Metric.DAU].tolist()
    drive_command_line(tmp_path, monkeypatch)
    shown = "\n".join([*answers, caplog.text, *capfd.readouterr()])
    # The command's own usage error names what was typed, on the terminal where it was typed.
    typed = shown.replace(f"found '{CANARY_USER}'", "")

    assert CANARY_USER not in typed
    assert str(CANARY_COUNT) not in shown
    counts = {str(CANARY_COUNT).encode(), str(CANARY_COUNT - 1).encode()}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert CANARY_USER.encode() not in content, path
        if "activity" not in path.parts:
            assert not any(count in content for count in counts), path


class _Offset:
    """Noise that is never 0, so that a published estimate is not the exact count by chance."""

    def discrete_laplace(self, scale: float, size: int):
        """A fixed offset."""
        import numpy as np

        return np.full(size, 3, np.int64)

    discrete_gaussian = discrete_laplace


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A planted leak is found: the same search over a file that holds the id turns red."""
    leak = tmp_path / "leak.log"
    leak.write_text(f"user {CANARY_USER} of {dt.date(2026, 1, 1)}")

    assert any(CANARY_USER.encode() in path.read_bytes() for path in tmp_path.rglob("*"))
