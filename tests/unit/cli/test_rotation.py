"""`dpdau rotate-salt`, and what `doctor` says of the key."""

import datetime as dt
import json
from pathlib import Path

import pytest

from dpdau.app import App, secret_of
from dpdau.cli.root import run
from dpdau.pseudonym import Keyring
from dpdau.pseudonym.key_file import KEYRING_FILE
from dpdau.settings import load

MADE = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dt.datetime]:
    """The time, for a working directory after `dpdau init` whose key was made just now."""
    monkeypatch.chdir(tmp_path)
    time = [MADE]
    defaults = {**App.open.__func__.__kwdefaults__, "clock": lambda: time[0]}
    monkeypatch.setattr(App.open.__func__, "__kwdefaults__", defaults)
    assert 0 == run(["init"])
    folder = Path("data/keyring")
    (folder / KEYRING_FILE).unlink()
    Keyring.create(folder, secret_of(load()), clock=lambda: MADE)
    return time


def after(days: int) -> str:
    """A day from today, as text."""
    return (MADE.date() + dt.timedelta(days=days)).isoformat()


def test_a_rotation_is_planned_and_shown(
    now: list[dt.datetime], capsys: pytest.CaptureFixture[str]
) -> None:
    """From when, until when the old key stays, and when it is replaced in turn."""
    capsys.readouterr()
    assert 0 == run(["rotate-salt", after(30), "--rotation-days", "7", "--json"])
    change = json.loads(capsys.readouterr().out)
    assert 0 == run(["rotate-salt", after(20)])
    shown = capsys.readouterr().out

    assert (after(30), after(37)) == (change["effective"], change["next_rotation"])
    assert (after(30 + 67), after(30 + 65)) == (change["older_until"], change["first_day"])
    for text in (after(20), after(20 + 67), after(20 + 65), after(20 + 90), "under 2 keys"):
        assert text in shown


@pytest.mark.parametrize(
    "words", [["yesterday"], [after(-2)], [after(400)], [after(2), "--rotation-days", "0"]]
)
def test_a_day_that_cannot_be_is_bad_input(now: list[dt.datetime], words: list[str]) -> None:
    """No day, a day that is over, and one after the key is replaced by itself."""
    assert 2 == run(["rotate-salt", *words])


def test_beside_a_service_it_says_that_the_service_does_it(
    now: list[dt.datetime], capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys change where nobody else uses them."""
    with App.open(load(), serve_at="http://127.0.0.1:1").closing():
        assert 5 == run(["rotate-salt", after(1)])
        assert "replaces the key by itself" in capsys.readouterr().err
    with App.open(load()).closing():
        assert 5 == run(["rotate-salt", after(1)])
        assert "another command" in capsys.readouterr().err
    assert 0 == run(["rotate-salt", after(1)])


def test_doctor_warns_of_a_key_that_nothing_replaces(
    now: list[dt.datetime], capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is due is none of the operator's business, unless nothing has come to do it."""
    found = []
    for days in (89, 91, 92):
        now[0] = MADE + dt.timedelta(days=days)
        capsys.readouterr()
        assert 0 == run(["doctor", "--check", "key-age", "--json"])
        found += [one["status"] for one in json.loads(capsys.readouterr().out)]

    assert ["ok", "ok", "warning"] == found
