"""A Spark to count with: which masters there are, who may listen, and the words of its errors."""

import sys
from typing import Any

import pytest

from components import SAIL, sail_server
from dpdau.activity.spark import session
from dpdau.errors import InvalidSettingError, WarehouseUnavailableError

pytest.importorskip("pyspark")


@pytest.mark.parametrize(
    ("master", "sound"),
    [
        ("local", True),
        ("local[2]", True),
        ("local[*]", True),
        ("local[2, 3]", True),
        ("local-cluster[2,1,1024]", True),
        ("spark://h:7077,g:7077", True),
        ("yarn", True),
        ("k8s://https://h:6443", True),
        ("sc://localhost", True),
        ("sc://127.0.0.1:15002/;token=hush", True),
        ("sc://[::1]:15002", True),
        ("sc://far.example/;USE_SSL=true;token=hush", True),
        ("sc://far.example/;use_ssl=false;token=hush", False),
        ("sc://far.example:443", False),
        ("sc://", False),
        ("local[all]", False),
        ("mesos://h", False),
        ("yarn ", False),
        ("", False),
    ],
)
def test_a_master_is_known_or_refused(master: str, sound: bool) -> None:
    """A server of another machine is spoken to under TLS; no refusal repeats an address."""
    if sound:
        session.check_master(master)
        return
    with pytest.raises(InvalidSettingError) as caught:
        session.check_master(master)
    assert "hush" not in str(caught.value) and "far" not in str(caught.value)


@pytest.mark.parametrize("master", ["sc://127.0.0.1:1", "spark://127.0.0.1:1,127.0.0.1:2"])
def test_a_master_that_nobody_serves_is_told_at_once(master: str) -> None:
    """Spark itself would try for minutes."""
    with pytest.raises(WarehouseUnavailableError, match="found nobody there"):
        session.connect(master)


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it is in the words."""
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(InvalidSettingError, match=r"dp-dau-mau\[spark\]"):
        session.connect("local[1]")


def test_an_error_has_a_name_without_its_words() -> None:
    """Its condition where Spark gives one, else its class; a condition of another form is none."""

    class FailedError(Exception):
        """One that a test raises."""

        condition: Any = None

        def getCondition(self) -> Any:
            """As errors of Spark have it."""
            return self.condition

    one = FailedError("user-4711")
    assert "FailedError" == session.word_of(one) == session.word_of(FailedError())
    one.condition = "TABLE_OR_VIEW_NOT_FOUND"
    assert "TABLE_OR_VIEW_NOT_FOUND" == session.word_of(one)
    one.condition = "user-4711 is no number"
    assert "FailedError" == session.word_of(one)
    assert "ValueError" == session.word_of(ValueError("user-4711"))


@SAIL
def test_sessions_share_nothing_and_count_in_utc(master: str) -> None:
    """What one calls a view the other does not know; an option is that of its session."""
    one = session.connect(master, options={"spark.sql.shuffle.partitions": "3"})
    other = session.connect(master)
    try:
        one.range(3).createTempView("three")
        (row,) = other.sql("select unix_timestamp(timestamp '1970-01-02') as seconds").collect()
        assert ("UTC", "3", 3) == (
            other.conf.get("spark.sql.session.timeZone"),
            one.conf.get("spark.sql.shuffle.partitions"),
            one.table("three").count(),
        )
        with pytest.raises(session.errors()):
            other.table("three").count()
        assert 86_400 == row.seconds
    finally:
        one.stop()
        other.stop()


@SAIL
def test_an_error_of_a_query_is_among_those_known(master: str) -> None:
    """And its name quotes nothing of the query."""
    one = session.connect(master)
    try:
        with pytest.raises(session.errors()) as caught:
            one.sql("select raise_error('user-4711')").collect()
    finally:
        one.stop()
    assert "4711" not in session.word_of(caught.value)


@SAIL
def test_a_server_that_is_gone_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself the client would try for ten minutes; an end of the session is none of it."""
    monkeypatch.setattr(session, "RETRIES_MAX", 1)
    with sail_server() as url:
        one = session.connect(url)
        assert 3 == one.range(3).count()
    with pytest.raises(session.errors()):
        one.range(3).count()
    one.stop()
