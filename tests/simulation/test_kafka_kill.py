"""`dpdau consume` on Apache Kafka itself: killed, rebalanced, and still each event once.

`DPDAU_SOAK=1` kills fifty times instead of five.
"""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components import Kafka, make_topics
from dpdau.app.consuming import Consumption
from dpdau.domain import Metric
from in_process import service
from kafka_topics import produce, until
from products import DAY, product, send
from streams import counts, recount, stream

SEED = 20260322
KILLS = 50 if os.environ.get("DPDAU_SOAK") else 5
PARTITIONS = 6
MEMBERS_MAX = 3
CHANGES = 8
PATIENCE_SECONDS = 60
OPTIONS = "session.timeout.ms=800,heartbeat.interval.ms=100"
NEVER = 0
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]

# The real command with small batches, which kills itself at the n-th point: about to make something
# durable, in the middle of a transaction, or behind it, or when a batch is told as stored.
CHILD = """
import datetime as dt, os, signal, sys
from dpdau.activity.manifest import Manifest
from dpdau.app.consuming import Consumption
from dpdau.app.product import App
from dpdau.ingest.kafka import member

left = int(sys.argv.pop(1))
member.MESSAGES_MAX = int(sys.argv.pop(1))
opened = App.open
fsync, stored, offsets = os.fsync, Consumption.stored, Manifest.set_offsets

def point():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(function):
    def wrapper(*arguments):
        point()
        found = function(*arguments)
        point()
        return found
    return wrapper

def at_its_time(settings, **options):
    now = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
    return opened(settings, **{**options, "clock": lambda: now})

os.fsync, Manifest.set_offsets = watched(fsync), watched(offsets)
Consumption.stored = watched(stored)
App.open = at_its_time
from dpdau.cli import main
main()
"""


@pytest.fixture
def address(kafka: Kafka) -> str:
    """Apache Kafka, one node."""
    return kafka.address


def test_kills_lose_nothing_and_double_nothing(address: str, tmp_path: Path) -> None:
    """After kills at seeded points the counts are the recount, and no event is left or repeated."""
    seeded = random.Random(SEED)
    rows = stream(SEED, 1_200 * KILLS)
    make_topics(address, {"kills": PARTITIONS, "kills-dead": 1})
    share = len(rows) // KILLS
    for kill in range(KILLS):
        produce(address, "kills", rows[kill * share : (kill + 1) * share])
        done = _run(address, tmp_path, seeded.randint(6, 24), "--workers", str(1 + kill % 3))
        assert -signal.SIGKILL == done.returncode, f"seed {SEED}, kill {kill}: {done.stderr}"
    done = _run(address, tmp_path, NEVER, "--workers", "3")
    last = json.loads(done.stdout)
    again = json.loads(_run(address, tmp_path, NEVER).stdout)

    assert 0 < last["accepted"] < len(rows)
    # Every event has an id, so one that was applied before would count as duplicate.
    assert (last["accepted"], 0, 0) == (last["received"], last["duplicate"], again["received"])
    assert recount(rows) == counts(tmp_path / "data")


def test_sigterm_ends_what_is_in_flight_and_leaves(address: str, tmp_path: Path) -> None:
    """The command ends with 0, what it says it stored is stored, and the next run has the rest."""
    rows = stream(SEED + 1, 3_000)
    make_topics(address, {"term": PARTITIONS, "term-dead": 1})
    produce(address, "term", rows)
    command = _command(NEVER, "--workers", "2")
    environment = _environment(address, tmp_path, "term")
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as running:
        until(lambda: (tmp_path / "data" / "activity" / "manifest.sqlite").exists())
        running.send_signal(signal.SIGTERM)
        told, _ = running.communicate(timeout=PATIENCE_SECONDS)
    first = json.loads(told)
    rest = json.loads(_run(address, tmp_path, NEVER, topic="term").stdout)

    assert 0 == running.returncode
    assert (len(rows), 0) == (first["accepted"] + rest["accepted"], rest["duplicate"])
    assert recount(rows) == counts(tmp_path / "data")


def test_members_that_come_and_go_apply_each_event_once(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to three members join and leave while events come: each is accepted, none twice."""
    monkeypatch.setattr("dpdau.ingest.kafka.member.MESSAGES_MAX", 200)
    seeded = random.Random(SEED)
    rows = stream(SEED + 2, 60_000)
    make_topics(address, {"moves": PARTITIONS, "moves-dead": 1})
    sending = threading.Thread(target=produce, args=(address, "moves", rows))
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_TOPIC": "moves",
        "KAFKA_OPTIONS": OPTIONS,
    }
    with product(tmp_path, **settings) as app:
        consumption = Consumption(app)
        consumption.start()
        sending.start()
        members, moved = 1, 0
        for _ in range(CHANGES):
            before = consumption.standing().report.received
            grows = members == 1 or (members < MEMBERS_MAX and seeded.random() < 0.6)
            if grows:
                consumption.members.add()
            else:
                consumption.members.remove()
            members += 1 if grows else -1
            enough = min(before, 0.95 * len(rows))
            until(lambda enough=enough: consumption.standing().report.received > enough)
            moved += consumption.standing().report.received < len(rows)
        sending.join()
        until(lambda: consumption.standing().report.received >= len(rows))
        consumption.close()
        report = consumption.standing().report

    assert (len(rows), len(rows), 0) == (report.received, report.accepted, report.duplicate)
    assert moved > 2, f"seed {SEED}: the stream was over before the members moved"
    assert recount(rows) == counts(tmp_path / "data")


def test_events_through_kafka_count_as_those_sent_directly(address: str, tmp_path: Path) -> None:
    """HTTP to Kafka to the store: the counts are those of a store that was written directly, and a
    batch that came twice counts once, though a removal came between."""
    make_topics(address, {"through": PARTITIONS, "through-dead": 1})
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_TOPIC": "through",
        "KAFKA_OPTIONS": OPTIONS,
    }
    rows = stream(13, 600)
    for row in rows:
        del row["event_id"]
    parts = [rows[at : at + 200] for at in range(0, 600, 200)]
    again = [parts[0], parts[1], parts[0], parts[2], parts[1]]
    names = ["b0", "b1", "b0", "b2", "b1"]
    with product(tmp_path / "direct") as direct:
        for part, name in zip(again, names, strict=True):
            send(direct, part, name)
    through_kafka = {**settings, "INGEST_MODE": "kafka"}
    with product(tmp_path / "front", **through_kafka) as front, service(front) as http:
        for part, name in zip(again, names, strict=True):
            answer = http.post("/events", json=part, headers={"Idempotency-Key": name})
            assert (202, 200) == (answer.status_code, answer.json()["accepted"])
    with product(tmp_path / "store", **through_kafka) as store:
        consumption = Consumption(store, workers=2)
        consumption.start()
        until(lambda: consumption.is_at_end)
        consumption.close()
        report = consumption.standing().report
        erased = store.erase("u1")
        released = store.release(Metric.DAU, DAY, fresh=True)

    assert (600, 400) == (report.accepted, report.duplicate)
    assert 0 < erased.days_touched and 0 < released.release.estimate
    with product(tmp_path / "direct") as direct:
        direct.erase("u1")
    assert counts(tmp_path / "direct" / "data") == counts(tmp_path / "store" / "data")


def _run(
    address: str, folder: Path, points: int, *more: str, topic: str = "kills"
) -> "subprocess.CompletedProcess[str]":
    """One run of the command, until the end or a kill."""
    return subprocess.run(
        _command(points, "--until-end", *more),
        env=_environment(address, folder, topic),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def _command(points: int, *more: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-c", CHILD, str(points), "150", "consume", "--json", *more]


def _environment(address: str, folder: Path, topic: str) -> dict[str, str]:
    """The settings of a run."""
    return {
        **os.environ,
        "DATA_DIR": str(folder / "data"),
        "HASH_SALT_SECRET": "b64:" + base64.b64encode(bytes(range(32))).decode(),
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP": topic,
        "KAFKA_OPTIONS": OPTIONS,
    }
