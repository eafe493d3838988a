"""Erasing, showing a receipt and proving it on the command line."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from dpdau.activity.manifest import Manifest
from dpdau.cli.root import run
from dpdau.errors import StoreUnavailableError

WHO = "somebody-who-leaves"


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A working directory with two users."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    rows = [{"user_id": user, "op": "+", "day": "2026-01-05"} for user in (WHO, "somebody-else")]
    (tmp_path / "events.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert 0 == run(["init"])
    assert 0 == run(["ingest", "--from", "events.ndjson"])
    capsys.readouterr()
    return tmp_path


def erased(capsys: pytest.CaptureFixture[str]) -> str:
    """Erases the user; the id of the receipt."""
    assert 0 == run(["erase", WHO, "--json"])
    return str(json.loads(capsys.readouterr().out)["erasure_id"])


def test_a_receipt_is_worded_to_be_handed_over(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what was done and what it does not prove, and names nobody."""
    erasure_id = erased(capsys)
    assert 0 == run(["erasure", erasure_id])
    text = capsys.readouterr().out
    assert 0 == run(["erasure", erasure_id, "--json"])
    body = json.loads(capsys.readouterr().out)

    assert erasure_id in text
    assert "days touched   1" in text
    assert "files cleared  yes" in text
    assert "It does not say who the user is" in text
    assert (1, True, []) == (body["keys_searched"], body["files_cleared"], body["tombstones"])
    assert WHO not in text + json.dumps(body)
    assert 2 == run(["erasure", "unknown"])


def test_verification_ends_with_the_integrity_code_where_someone_is_left(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 for the erased user, 6 for another one, with what was searched and found."""
    erased(capsys)
    assert 0 == run(["flush-deletes", "--verify", "--user", WHO])
    clean = capsys.readouterr().out
    assert 6 == run(["flush-deletes", "--verify", "--user", "somebody-else"])
    found = capsys.readouterr()
    assert 0 == run(["flush-deletes", "--verify", "--json"])
    body = json.loads(capsys.readouterr().out)

    assert "found in 0 places" in clean
    assert "searched: " in clean
    assert "found: " in found.out
    assert "[store_corrupt]" in found.err
    assert "somebody-else" not in found.out + found.err
    assert (True, None) == (body["proof"]["ok"], body["proof"]["keys_searched"])


def test_flushing_alone_reads_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--verify` there is no proof, and a user goes with a proof only."""
    assert 0 == run(["flush-deletes"])
    assert "flushed: " in capsys.readouterr().out
    assert 2 == run(["flush-deletes", "--user", WHO])


def test_a_receipt_does_not_promise_what_is_not_done(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a reader kept the log, the wording does not say that the files are gone."""

    def fail(_self: Manifest) -> None:
        raise StoreUnavailableError("busy")

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "truncate_log", fail)
        assert 5 == run(["erase", WHO])
        capsys.readouterr()
        (erasure_id,) = _erasures(home)
        assert 0 == run(["erasure", erasure_id])
        early = capsys.readouterr().out
    assert 0 == run(["flush-deletes"])
    capsys.readouterr()
    assert 0 == run(["erasure", erasure_id])
    late = capsys.readouterr().out

    assert "not yet" in early
    assert "rewritten and deleted" not in early
    assert "rewritten and deleted" in late


def _erasures(home: Path) -> list[str]:
    """The ids of the receipts of the store."""
    path = home / "data" / "activity" / "manifest.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [str(row[0]) for row in db.execute("SELECT erasure_id FROM erasures")]
