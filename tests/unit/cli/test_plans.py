"""Commands on month plans: tables for people, one charge, and nothing charged by looking."""

import json
from pathlib import Path

import pytest

from dpdau.cli.root import run

MONTH = "2026-02"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory after `dpdau init`, with one user."""
    monkeypatch.chdir(tmp_path)
    assert 0 == run(["init"])
    (tmp_path / "e.csv").write_text("user_id,day\nalice,2026-02-03\n")
    assert 0 == run(["ingest", "--from", "e.csv"])
    return tmp_path


def test_a_price_is_a_table_and_charges_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each metric has its half-widths and the users from which on they are within 5 %."""
    assert 0 == run(["plan", "price", MONTH])
    shown = capsys.readouterr().out
    assert 4 == run(["plan", "show", MONTH]) or 2 == run(["plan", "show", MONTH])

    assert all(word in shown for word in ("dau", "wau", "mau", "± 1", "users for ± 5%"))
    assert "pays for all 84 numbers of 2026-02" in shown
    assert "dpdau plan open 2026-02" in shown


def test_a_plan_is_opened_shown_and_taken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening charges once; asking for a day takes those before it; all are in the series."""
    assert 0 == run(["plan", "open", MONTH])
    assert 0 == run(["mau", "--end", "2026-02-10"])
    capsys.readouterr()
    assert 0 == run(["plan", "show", MONTH])
    shown = capsys.readouterr().out
    assert 0 == run(["plan", "price", MONTH])
    priced = capsys.readouterr().out
    days = ["--from", "2026-02-01", "--to", "2026-02-28"]
    assert 0 == run(["series", *days, "--view", "smoothed", "--json"])
    smoothed = json.loads(capsys.readouterr().out)

    assert "10 of 28 published" in shown
    assert "2026-02-11, which closes at 2026-02-13" in shown
    assert "ε 3 at δ 1e-06" in shown
    assert "The plan is open" in priced
    assert (30, {"smoothed"}) == (len(smoothed), {one["status"] for one in smoothed})


def test_a_plan_is_given_up(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan abandon` says what is left, and asks for a reason."""
    assert 0 == run(["plan", "open", MONTH])
    assert 2 == run(["plan", "abandon", MONTH])
    capsys.readouterr()
    assert 0 == run(["plan", "abandon", MONTH, "--reason", "the store was lost"])

    assert "given up" in capsys.readouterr().out
