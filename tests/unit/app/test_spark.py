"""A lake whose Spark starts with the first question to it, and which a service starts at once."""

import datetime as dt
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.app.lake import start_spark
from dpdau.errors import DpdauError, InvalidSettingError, WarehouseUnavailableError
from products import NOW, event, product, product_settings, send

pytest.importorskip("pyspark")

NOBODY = "sc://127.0.0.1:1"
DAY = dt.date(2026, 2, 1)


@pytest.mark.parametrize("read_only", [True, False])
def test_what_only_the_ledger_is_asked_needs_no_spark(read_only: bool, tmp_path: Path) -> None:
    """Budgets and the audit are told while no Spark can be reached, also where nothing was made."""
    settings = product_settings(tmp_path, SPARK_MASTER=NOBODY)
    with App.open(settings, clock=lambda: NOW, read_only=read_only).closing() as app:
        assert 0 == app.budget("dau", DAY).epsilon_spent
        assert app.ledger.verify().ok


def test_what_needs_a_spark_says_that_there_is_none(tmp_path: Path) -> None:
    """At the first event or count, and at the start of a service; again each time."""
    with product(tmp_path, SPARK_MASTER=NOBODY) as app:
        for _ in range(2):
            with pytest.raises(WarehouseUnavailableError, match="found nobody there"):
                start_spark(app)
        with pytest.raises(DpdauError, match="found nobody there"):
            send(app, [event("a", DAY)])


def test_an_embedded_store_has_no_spark_to_start(tmp_path: Path) -> None:
    """Starting it is nothing."""
    with product(tmp_path) as app:
        start_spark(app)


def test_a_folder_that_spark_would_misread_is_refused(tmp_path: Path) -> None:
    """The lake, and the directory that has Spark's checkpoints, before anything is made there."""
    lake, beside = tmp_path / "a%20b", tmp_path / "c*d"
    for root, more in (
        (tmp_path, {"LAKE_DIR": str(lake)}),
        (beside, {"LAKE_DIR": str(tmp_path / "lake")}),
    ):
        settings = product_settings(root, SPARK_MASTER=NOBODY, **more)
        with pytest.raises(InvalidSettingError, match="mean something to Spark"):
            App.open(settings, clock=lambda: NOW)

    assert not lake.exists()
