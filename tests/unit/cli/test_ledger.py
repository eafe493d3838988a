"""The ledger of a data directory goes to Postgres and back, from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import postgres_server
from dpdau.app import App
from dpdau.cli.root import run
from dpdau.settings import load
from simulation.ledger_cases import POSTGRES, empty_schema

pytestmark = POSTGRES
DAY = "2026-01-10"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of its own."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """A database without tables."""
    return empty_schema(server)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an event, for releases on demand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    assert 0 == run(["init"])
    (tmp_path / "events.csv").write_text(f"user_id,day\nalice,{DAY}\n")
    assert 0 == run(["ingest", "--from", "events.csv"])
    return tmp_path


def test_a_ledger_moves_to_postgres(
    home: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied, verified, used there by every command, backed up with the rest, and copied back."""
    assert 0 == run(["dau", "--day", DAY])
    capsys.readouterr()
    assert 0 == run(["ledger", "copy", "--to", url, "--json"])
    copied = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("SERVICE_DATABASE_URL", url)

    assert 0 == run(["dau", "--day", DAY])
    assert "nothing charged" in capsys.readouterr().out
    assert 0 == run(["dau", "--day", "2026-01-09"])
    assert 0 == run(["migrate", "--dry-run"])
    assert 0 == run(["audit"])
    assert 0 == run(["backup", "--to", "copy.sqlite"])
    assert 0 == run(["backup", "--all", "--to", "everything"])
    assert 2 == run(["ledger", "copy", "--to", url])
    assert 2 == run(["restore", "copy.sqlite"])
    assert "dpdau ledger copy" in capsys.readouterr().err
    assert 0 == run(["restore", "everything", "--verify"])
    assert 0 == run(["restore", "everything", "--accept-older-activity"])
    assert 0 == run(["ledger", "copy", "--to", f"sqlite:///{home}/back.sqlite"])
    monkeypatch.setenv("SERVICE_DATABASE_URL", f"sqlite:///{home}/back.sqlite")
    assert 0 == run(["audit"])

    assert (True, 5, 1) == (copied["ok"], copied["entries"], copied["charges"])


def test_an_event_loop_does_not_read_over_a_network(
    home: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ledger in a file stored numbers are read at once; with one on a server they wait."""
    found = []
    for place in (f"sqlite:///{home}/other.sqlite", url):
        monkeypatch.setenv("SERVICE_DATABASE_URL", place)
        with App.open(load(DATA_DIR=home / place[:6]), reported=False).closing() as app:
            found.append(app.is_quick)

    assert [True, False] == found


def test_a_ledger_that_was_lost_is_not_made_anew(
    home: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory that released numbers does not start over in an empty database."""
    assert 0 == run(["dau", "--day", DAY])
    monkeypatch.setenv("SERVICE_DATABASE_URL", url)

    assert 6 == run(["dau", "--day", DAY])
    (home / "data" / "ledger.mark.json").rename(home / "mark")
    assert 6 == run(["dau", "--day", DAY])
    assert 2 == run(["ledger", "copy", "--to", url])
    assert "none that this data directory has used" in capsys.readouterr().err


def test_a_password_is_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings are shown with the URL of the ledger, and without its password."""
    capsys.readouterr()
    for url in (
        "postgresql+psycopg://ada:s3cret@host/ledger?sslmode=require",
        "postgresql+psycopg://host/ledger?password=s3cret&user=ada",
    ):
        monkeypatch.setenv("SERVICE_DATABASE_URL", url)
        assert 0 == run(["config", "show", "--json"])
        out = capsys.readouterr().out
        assert url.replace("s3cret", "(hidden)") in out
        assert "s3cret" not in out
