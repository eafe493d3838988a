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
        ("sc://far.example/;use_ssl=TRUE", True),
        # With a token the client takes TLS, whatever else is said.
        ("sc://far.example/;use_ssl=false;token=hush", True),
        ("sc://far.example:443", False),
        ("sc://far.example/;USE_SSL=true", False),
        ("sc://far.example;use_ssl=true", False),
        ("sc://far.example/;use_ssl=true;use_ssl=false", False),
        ("sc://far.example/?a;use_ssl=true", False),
        ("sc://far.example/#;use_ssl=true", False),
        ("sc://far.example/hush;use_ssl=true", False),
        ("sc://far.example/;use_ssl=true;hush", False),
        ("sc://far.example:hush/;use_ssl=true", False),
        ("sc://", False),
        ("local[all]", False),
        ("mesos://h", False),
        ("yarn ", False),
        ("", False),
    ],
)
def test_a_master_is_known_or_refused(
    master: str, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of another machine is spoken to under TLS; no refusal repeats an address."""
    monkeypatch.delenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", raising=False)
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
    # As Py4J wraps what Java throws.
    outer, inner = FailedError(), FailedError()
    outer.java_exception, inner.condition = inner, "CANNOT_MERGE_SCHEMAS"  # type: ignore[attr-defined]
    assert "CANNOT_MERGE_SCHEMAS" == session.word_of(outer)


class Running:
    """A Spark that is asked for a session: what it is told, and what it is started with."""

    def __init__(self, **kept: str) -> None:
        self.told: dict[str, str] = {}
        self.kept = kept
        self.ended = False
        self.sparkContext = self

    def __getattr__(self, name: str) -> Any:
        """Builder, session, context and their options are all this."""
        return {"appName": lambda _name: self, "getOrCreate": lambda: self}.get(name, lambda: self)

    def master(self, name: str) -> "Running":
        """As the builder has it."""
        self.master = name  # type: ignore[method-assign, assignment]
        return self

    def config(self, key: str, value: str) -> "Running":
        """As the builder has it."""
        self.told[key] = value
        return self

    def get(self, key: str, default: str | None = None) -> str | None:
        """As the options of a context have it."""
        return self.kept.get(key, default)

    def stop(self) -> None:
        """As the session has it."""
        self.ended = True


SAFE = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.io.encryption.enabled": "true",
}


def asked(
    patch: pytest.MonkeyPatch, master: str, *, running: Running, own: bool, **options: str
) -> Running:
    """What a Spark is told that a session asks for; it runs before that unless it is its own."""
    patch.setattr("pyspark.sql.SparkSession.builder", running)
    patch.setattr("pyspark.SparkContext._active_spark_context", None if own else running)
    patch.setattr(session, "_check_there", lambda _master: None)
    patch.setenv("PYSPARK_PYTHON", sys.executable)
    session.connect(master, options=options)
    return running


@pytest.mark.parametrize("own", [True, False])
def test_what_runs_has_to_be_private_whatever_a_session_asks_for(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that come too late do not count; a Spark that was started for it is ended again."""
    open_one = Running()
    with pytest.raises(InvalidSettingError, match=r"spark\.authenticate=true"):
        asked(monkeypatch, "yarn", running=open_one, own=own, **SAFE)
    assert own is open_one.ended
    assert not asked(monkeypatch, "yarn", running=Running(**SAFE), own=own).ended


def test_nothing_is_shown_or_logged_by_whatever_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a browser nor in an event log; one of this machine is for nobody else."""
    far = asked(monkeypatch, "yarn", running=Running(**SAFE), own=True).told
    for master in ("local[2]", "spark://127.0.0.1:7077,[::1]:7077"):
        here = asked(monkeypatch, master, running=Running(), own=True).told
        assert ["127.0.0.1", "127.0.0.1", "true"] == [
            here[f"spark.{name}"]
            for name in ("driver.host", "driver.bindAddress", "io.encryption.enabled")
        ]
        assert far.items() <= here.items()
    assert ("false", "false") == (far["spark.ui.enabled"], far["spark.eventLog.enabled"])
    assert "spark.driver.host" not in far

    wanted = {"spark.ui.enabled": "true"}
    told = asked(monkeypatch, "local[2]", running=Running(), own=True, **wanted).told
    assert "true" == told["spark.ui.enabled"]


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
def test_what_a_query_fails_at_is_not_logged(
    master: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """By itself the library writes the words of an error, which quote the row, where it stands."""
    from pyspark.logger import PySparkLogger

    session.connect(master).stop()
    for kind in ("DataFrame", "SQL"):
        PySparkLogger.getLogger(f"{kind}QueryContextLogger").exception("user-4711", errorClass="X")
    assert "" == capfd.readouterr().err


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
