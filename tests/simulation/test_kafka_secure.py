"""Kafka behind TLS and a password: in and out, and one clear error where it will not have us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components import KAFKA_PASSWORD, KAFKA_USER, Kafka, make_topics
from dpdau.errors import BrokerUnavailableError
from kafka_topics import QUICK
from products import SECRET, event, product, send
from streams import counts, recount, stream
from trust import throw_away_trust

PATIENCE_SECONDS = 60
WRONG = "wrong-horse-battery"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]


def options(kafka: Kafka, *, password: str = KAFKA_PASSWORD, authority: Path | None = None) -> str:
    """`KAFKA_OPTIONS` for the secure address."""
    return (
        f"{QUICK},security.protocol=SASL_SSL,sasl.mechanisms=SCRAM-SHA-512,"
        f"sasl.username={KAFKA_USER},sasl.password={password},"
        f"ssl.ca.location={authority or kafka.authority}"
    )


def settings(kafka: Kafka, chosen: str) -> dict[str, object]:
    """Settings that reach the topic over TLS."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.secure,
        "KAFKA_TOPIC": "secure",
        "KAFKA_GROUP": "secure",
        "KAFKA_DEAD_LETTER_TOPIC": "",
        "KAFKA_OPTIONS": chosen,
    }


def run(kafka: Kafka, folder: Path, chosen: str) -> "subprocess.CompletedProcess[str]":
    """`dpdau consume --until-end`."""
    own = {name: str(value) for name, value in settings(kafka, chosen).items()}
    return subprocess.run(
        [sys.executable, "-m", "dpdau", "consume", "--until-end"],
        env={**os.environ, "DATA_DIR": str(folder / "data"), "HASH_SALT_SECRET": SECRET, **own},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def test_events_go_in_and_come_out_over_tls(kafka: Kafka, tmp_path: Path) -> None:
    """With the right password and authority the counts are the recount."""
    make_topics(kafka.address, {"secure": 2})
    rows = stream(17, 500)
    front = {**settings(kafka, options(kafka)), "INGEST_MODE": "kafka"}
    with product(tmp_path / "front", **front) as app:
        send(app, rows)
    done = run(kafka, tmp_path, options(kafka))

    assert (0, "500 received = 500 accepted") == (done.returncode, done.stdout[:27]), done.stderr
    assert recount(rows) == counts(tmp_path / "data")


@pytest.mark.parametrize("wrong", ["password", "authority"])
def test_who_is_refused_gets_one_clear_error(kafka: Kafka, tmp_path: Path, wrong: str) -> None:
    """The command ends with what is wrong and where it is set, and shows no secret."""
    chosen = options(kafka, password=WRONG)
    said = "refuse this user or password"
    if wrong == "authority":
        chosen = options(kafka, authority=throw_away_trust(tmp_path))
        said = "do not trust each other"
    done = run(kafka, tmp_path, chosen)
    *logs, last = done.stderr.splitlines()

    assert 2 == done.returncode
    assert "KAFKA_OPTIONS" in last and said in last
    assert 1 == sum("consuming ended" in one for one in logs)
    assert "Traceback" not in done.stderr
    for secret in (WRONG, KAFKA_PASSWORD, KAFKA_USER + ","):
        assert secret not in done.stdout + done.stderr


def test_a_front_that_is_refused_says_so(kafka: Kafka, tmp_path: Path) -> None:
    """Nothing is acknowledged, and the error names the password without showing it."""
    chosen = f"{options(kafka, password=WRONG)},message.timeout.ms=1500"
    front = {**settings(kafka, chosen), "INGEST_MODE": "kafka"}
    with product(tmp_path, **front) as app, pytest.raises(BrokerUnavailableError) as refused:
        send(app, [event("ada")])

    assert "refuse this user or password" in refused.value.message
    assert "_AUTHENTICATION" == refused.value.facts["reason"]
    assert WRONG not in str(refused.value)
