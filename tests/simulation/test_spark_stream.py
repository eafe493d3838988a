"""`dpdau consume` into a lake: Structured Streaming from Apache Kafka, with its driver killed.

`DPDAU_SOAK=1` kills ten times instead of once.
"""

import base64
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components import Kafka, make_topics, spark_kafka_jars, spark_local
from kafka_topics import messages_of, produce, send
from lakes import lake_counts
from streams import recount, stream

SEED = 20260324
KILLS = 10 if os.environ.get("DPDAU_SOAK") else 1
PARTITIONS = 3
PATIENCE_SECONDS = 180
NEVER = 0
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]

# The real command with small batches, which kills itself and its Spark at the n-th point: before
# offsets are stored, in that transaction, or when a batch is stored and Spark does not know it yet.
CHILD = """
import datetime as dt, json, os, signal, sys
from dpdau.activity.manifest import Manifest
from dpdau.app.product import App
from dpdau.app.streaming import Streaming
from dpdau.ingest.spark import stream

left = int(sys.argv.pop(1))
stream.MESSAGES_MAX = int(sys.argv.pop(1))
opened, offsets, taken = App.open, Manifest.set_offsets, Streaming._take

def point():
    global left
    left -= 1
    if left == 0:
        os.killpg(0, signal.SIGKILL)

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

Manifest.set_offsets, Streaming._take = watched(offsets), watched(taken)
App.open = at_its_time
from dpdau.cli import main
main()
"""


def test_a_killed_driver_loses_nothing_and_doubles_nothing(kafka: Kafka, tmp_path: Path) -> None:
    """After kills at any point the counts are the recount, and no event is left or repeated."""
    seeded = random.Random(SEED)
    rows = stream(SEED, 1_200 * KILLS)
    make_topics(kafka.address, {"spark": PARTITIONS, "spark-dead": 1})
    send(kafka.address, "spark", [("k", b"no json")])
    share = len(rows) // KILLS
    for kill in range(KILLS):
        produce(kafka.address, "spark", rows[kill * share : (kill + 1) * share])
        # At first when a batch is stored, and Spark would take it again.
        point = seeded.randint(1, 8) if kill else 8
        done = _run(kafka.address, tmp_path, point)
        assert -signal.SIGKILL == done.returncode, f"seed {SEED}, kill {kill}: {done.stderr}"
    last = json.loads(_run(kafka.address, tmp_path, NEVER).stdout.splitlines()[-1])
    letters = messages_of(kafka.address, "spark-dead")

    assert 0 < last["accepted"] < len(rows)
    # Every event has an id, so one that was applied before would count as duplicate.
    assert (last["accepted"], 0) == (last["received"], last["duplicate"])
    assert recount(rows) == lake_counts(tmp_path / "data")
    assert {(b"no json", b"k")} == {(one.value(), one.key()) for one in letters}
    assert (b"bad_json", b"spark") == tuple(
        dict(letters[0].headers())[f"dpdau-{name}"] for name in ("reason", "topic")
    )


def _run(address: str, folder: Path, point: int) -> "subprocess.CompletedProcess[str]":
    """One run of the command, until the end or a kill."""
    options = {
        "spark.jars": spark_kafka_jars(),
        "spark.sql.shuffle.partitions": "2",
        "spark.log.level": "FATAL",
        # For a few rows, compiling costs more than it saves.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
    }
    with spark_local() as master:
        environment = {
            **os.environ,
            "DATA_DIR": str(folder / "data"),
            "HASH_SALT_SECRET": "b64:" + base64.b64encode(bytes(range(32))).decode(),
            "KAFKA_BOOTSTRAP_SERVERS": address,
            "KAFKA_TOPIC": "spark",
            "SPARK_MASTER": master,
            "SPARK_OPTIONS": ",".join(
                f"{name}={value.replace(',', chr(92) + ',')}" for name, value in options.items()
            ),
        }
        return subprocess.run(
            [sys.executable, "-c", CHILD, str(point), "800", "consume", "--until-end", "--json"],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            start_new_session=True,
        )
