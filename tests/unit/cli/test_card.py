"""`dpdau card`: a statement for a month, and what a reader does with it."""

import json
from pathlib import Path

import pytest

from dpdau.cli.root import run

DAY = "2026-01-05"


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A working directory in which one number was released."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    (tmp_path / "events.csv").write_text(f"user_id,day\na,{DAY}\nb,{DAY}\n")
    assert 0 == run(["init"])
    assert 0 == run(["ingest", "--from", "events.csv"])
    assert 0 == run(["dau", "--day", DAY])
    capsys.readouterr()
    return tmp_path


def test_a_reader_needs_the_file_and_the_key(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card is written, its key is shown, and elsewhere both are enough to check it."""
    assert 0 == run(["card", "--month", "2026-01"])
    assert 0 == run(["card", "--month", "2026-01", "--out", "card.pdf"])
    assert 0 == run(["card", "--month", "2026-01", "--out", "card.json"])
    capsys.readouterr()
    assert 0 == run(["card", "key"])
    key = capsys.readouterr().out.strip()
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    for name in ("card-2026-01.html", "card.pdf", "card.json"):
        (home / name).rename(elsewhere / name)
    monkeypatch.chdir(elsewhere)

    for path in sorted(elsewhere.iterdir()):
        assert 0 == run(["card", "verify", path.name, "--key", key])
        out, err = capsys.readouterr()
        assert f"{path.name}: sound" in out
        assert "" == err
    assert 0 == run(["card", "verify", "card.json"])
    assert "was not checked" in capsys.readouterr().err
    assert 6 == run(["card", "verify", "card.json", "--key", key.replace("ed25519:", "ed25519:x")])
    assert "[card_mismatch]" in capsys.readouterr().err
    assert 3 == len(list(elsewhere.iterdir()))


def test_a_changed_number_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 6, with what the page should say."""
    assert 0 == run(["card", "--month", "2026-01", "--out", "c.html"])
    page = (home / "c.html").read_text()
    (home / "c.html").write_text(page.replace(">(3.00, 0)<", ">(0.03, 0)<", 1))
    capsys.readouterr()

    assert 6 == run(["card", "verify", "c.html"])
    assert "'(3.00, 0)', found '(0.03, 0)'" in capsys.readouterr().err


def test_json_goes_to_standard_output(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the signed card, and writes no file unless --out says so."""
    assert 0 == run(["card", "--month", "2026-01", "--json"])
    body = json.loads(capsys.readouterr().out)

    assert "2026-01" == body["statement"]["month"]
    assert [] == list(home.glob("card*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["card"], "--month"),
        (["card", "--month", "2025-12"], "found none"),
        (["card", "--month", "January"], "YYYY-MM"),
        (["card", "--month", "2026-01", "--out", "card.docx"], ".pdf"),
        (["card", "verify", "nowhere.html"], "nowhere.html"),
        (["card", "verify", "events.csv"], "privacy card"),
        (["card", "key"], "dpdau card --month"),
    ],
)
def test_refusals_say_what_to_do(
    home: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each ends with 2, makes no key, and says what was expected."""
    assert 2 == run(words)
    assert said in capsys.readouterr().err
    assert not (home / "data" / "card.key.pem").exists()
