"""Grants at the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpdau.cli.root import run
from dpdau.errors import LedgerUnavailableError
from dpdau.ledger.transactions import Transactions


def test_a_grant_whose_outcome_is_unknown_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with 5 and the id to repeat it with; then it is granted once."""
    monkeypatch.chdir(tmp_path)
    assert 0 == run(["init"])
    words = ["reset-budget", "dau", "2026-01", "--reason", "a correction was due", "--json"]
    write = Transactions.write

    def lost(self: Transactions, name: str, work: Callable[[Any], Any]) -> Any:
        found = write(self, name, work)
        if name == "grant":
            raise LedgerUnavailableError("Expected an answer.")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, "write", lost)
        assert 5 == run(words)
    told = re.search(r"--grant-id ([0-9a-f]{32})", capsys.readouterr().err)
    assert told is not None
    assert 0 == run([*words, "--grant-id", told[1]])

    assert 6.0 == json.loads(capsys.readouterr().out)["epsilon_cap"]
