"""Keys and the audit log on the command line."""

import datetime as dt
import json
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from dpdau.cli.root import run
from dpdau.cli.session import local_app
from dpdau.ledger import Ledger


@pytest.fixture(autouse=True)
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A working directory with an empty product."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    assert 0 == run(["init"])
    capsys.readouterr()


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert 0 == run([*command, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_key_is_rotated_and_the_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The successor has its scopes and limit, the old one an end; the list shows the last use."""
    create = ["keys", "create", "--scope", "read", "--label", "app", "--rate-limit", "90/minute"]
    made = told(capsys, *create, "--expires", "2099-01-01")
    rotated = told(capsys, "keys", "rotate", made["key_id"], "--overlap-hours", "1.5")
    with local_app() as app:
        assert "app" == app.authenticate(rotated["api_key"]).name
        assert "app" == app.authenticate(made["api_key"]).name
        now = app.calendar.clock()

    ends = dt.datetime.fromisoformat(rotated["replaced_until"])
    assert abs(ends - now - dt.timedelta(hours=1.5)) < dt.timedelta(minutes=10)
    assert (made["key_id"], ["read"]) == (rotated["replaces"], rotated["scopes"])
    old, new = told(capsys, "keys", "list")
    assert (rotated["key_id"], ends.isoformat()) == (old["replaced_by"], old["expires_at"])
    assert ("90/minute", "90/minute", None) == (
        old["rate_limit"],
        new["rate_limit"],
        new["replaced_by"],
    )
    assert new["last_used"] is not None
    assert 0 == run(["keys", "list"])
    first, second = capsys.readouterr().out.splitlines()
    assert f"replaced by {new['key_id']}" in first
    assert f"used {now:%Y-%m-%dT}" in second
    assert "90/minute  app" in second


def test_rotating_shows_the_key_alone_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """So that it can be kept by a redirection; what else is to be known goes beside it."""
    made = told(capsys, "keys", "create", "--scope", "read", "--label", "app")
    assert 0 == run(["keys", "rotate", made["key_id"], "--expires", "2099-01-01"])
    shown = capsys.readouterr()

    with local_app() as app:
        key = app.ledger.keys.authenticate(shown.out.strip(), app.calendar.clock())
    assert key is not None
    assert key.expires_at == dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    assert "valid until" in shown.err
    assert 2 == run(["keys", "rotate", made["key_id"]])
    assert key.key_id in capsys.readouterr().err
    assert 2 == run(["keys", "create", "--scope", "read", "--label", "x", "--rate-limit", "many"])


def test_the_audit_log_is_listed_by_kind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a day on, everything or some kinds of it; page after page; an unknown kind is named."""
    monkeypatch.setattr(Ledger, "audit_log", partialmethod(Ledger.audit_log, limit=1))
    told(capsys, "keys", "create", "--scope", "read", "--label", "app")
    days = ["--from", "2026-01-05", "--to", "2026-01-05"]
    assert 0 == run(["exact", "--metrics", "dau", *days])
    assert 0 == run(["reset-budget", "dau", "2026-01", "--reason", "the board asked"])
    told(capsys, "backup", "--all", "--to", "copy")

    def listed(*options: str) -> list[tuple[str, str]]:
        log = told(capsys, "audit", "--since", "2020-01-01", *options)["log"]
        return [(one["kind"], one["actor"]) for one in log]

    kinds = ["key", "exact", "grant", "backup"]
    assert [(kind, "operator") for kind in kinds] == listed()
    assert [("grant", "operator"), ("backup", "operator")] == listed(
        "--kind", "grant", "--kind", "backup"
    )
    assert [] == told(capsys, "audit", "--since", "2099-01-01")["log"]
    assert [] == told(capsys, "audit")["log"]
    assert 0 == run(["audit", "--since", "2020-01-01", "--kind", "grant"])
    assert "the board asked" in capsys.readouterr().out
    assert 2 == run(["audit", "--since", "2020-01-01", "--kind", "noise"])
    assert "pseudonym-key" in capsys.readouterr().err
    assert 2 == run(["audit", "--kind", "grant"])
