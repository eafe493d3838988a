"""The documented JSON: every command has a shape, and what it prints fits it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from jsonschema import Draft202012Validator, ValidationError

from dpdau.cli.root import app, run
from dpdau.cli.schemas import OUTPUTS, json_schemas
from reference_pages import commands

DAY, OTHER = "2026-01-05", "2026-02-05"
SCHEMAS = json_schemas()


def fits(body: Any, schema: dict[str, Any]) -> None:
    """Raises where a body is not of a schema; definitions are those of the document."""
    Draft202012Validator({**schema, "$defs": SCHEMAS["$defs"]}).validate(body)


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a command with --json in a new directory, checks what it prints, and gives it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    assert 0 == run(["init"])
    (tmp_path / "e.csv").write_text(f"user_id,day\na,{DAY}\nb,{DAY}\nc,{OTHER}\n,{DAY}\n")

    def asked(command: str, *words: str, code: int = 0) -> Any:
        capsys.readouterr()
        found = run([*command.split(), *words, "--json"])
        out, err = capsys.readouterr()
        assert code == found, err
        body = json.loads(out)
        fits(body, SCHEMAS["commands"][command])
        return body

    return asked


def test_every_command_with_json_has_a_shape() -> None:
    """A command that takes --json is documented, and no other is."""
    takes = {
        name
        for name, command in commands(typer.main.get_command(app))
        if any("--json" in one.opts for one in command.params)
    }

    assert takes == set(OUTPUTS)


def test_numbers_fit_their_shapes(ask: Callable[..., Any]) -> None:
    """Taking in, releasing, pricing, reading, erasing."""
    ask("ingest", "--from", "e.csv")
    ask("dau", "--day", DAY)
    ask("dau", "--day", OTHER, "--dry-run")
    ask("wau", "--end", DAY)
    ask("mau", "--end", DAY, "--window", "28")
    ask("growth", "--end", DAY, "--window", "2")
    assert 3 == len(ask("series", "--from", DAY, "--to", DAY))
    ask("budget", "dau", "--day", DAY)
    ask("budget", "all", "--day", DAY)
    ask("reset-budget", "dau", "2026-01", "--reason", "tests")
    ask("exact", "--from", DAY, "--to", DAY)
    ask("plan price", "2026-02")
    ask("plan open", "2026-02")
    ask("plan show", "2026-02")
    ask("plan abandon", "2026-02", "--reason", "tests")
    ask("release", "--from", "e.csv", "--month", "2026-01", "--dry-run")
    receipt = ask("erase", "a")
    ask("erasure", receipt["erasure_id"])
    ask("flush-deletes", "--verify", "--user", "a")


def test_upkeep_fits_its_shapes(ask: Callable[..., Any], tmp_path: Path) -> None:
    """Looking after a deployment."""
    ask("ingest", "--from", "e.csv")
    ask("dau", "--day", DAY)
    ask("version")
    ask("doctor")
    ask("audit", "--since", "2020-01-01")
    ask("config show")
    key = ask("keys create", "--scope", "read", "--label", "tests")
    ask("keys list")
    ask("keys revoke", key["key_id"])
    ask("backup", "--to", "ledger.sqlite")
    ask("restore", "ledger.sqlite", "--verify")
    whole = ask("backup", "--all")
    ask("restore", whole["path"], "--verify")
    ask("card", "--month", "2026-01", "--out", "card.html")
    ask("card verify", "card.html")
    ask("card key")
    ask("ledger copy", "--to", f"sqlite:///{tmp_path}/copy.sqlite")


def test_errors_fit_their_shape(
    ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json an error is one line on standard error: expected, found, and facts."""
    capsys.readouterr()
    cases = (("soon", 2, "Expected a day"), ("2199-01-01", 4, "ask again then"))
    for day, code, said in cases:
        assert code == run(["dau", "--day", day, "--json"])
        out, err = capsys.readouterr()
        assert "" == out
        fits(json.loads(err), SCHEMAS["error"])
        assert said in json.loads(err)["detail"]


def test_a_shape_can_be_broken() -> None:
    """The document is a schema; a member that is missing or of another type does not fit."""
    Draft202012Validator.check_schema({**SCHEMAS["error"], "$defs": SCHEMAS["$defs"]})
    line = {"name": "dpdau", "version": "1"}
    fits({**line, "more": 1}, SCHEMAS["commands"]["version"])
    for bad in ({"name": "dpdau"}, {**line, "version": 1}, [line]):
        with pytest.raises(ValidationError):
            fits(bad, SCHEMAS["commands"]["version"])
