"""Completion: the scripts of three shells, and the values that they offer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau.cli import completion

DPDAU = Path(sys.executable).with_name("dpdau")


def completed(cwd: Path, instruction: str, **variables: str) -> str:
    """What the command prints when a shell asks it."""
    environment = {"PATH": os.environ["PATH"], "_DPDAU_COMPLETE": instruction, **variables}
    done = subprocess.run(
        [DPDAU], cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -"), ("zsh", "#compdef dpdau"), ("fish", "--arguments")]
)
def test_each_shell_gets_its_script(tmp_path: Path, shell: str, sign: str) -> None:
    """The script of a shell names the command and how it registers."""
    script = completed(tmp_path, f"source_{shell}")

    assert sign in script
    assert f"complete_{shell}" in script


def test_values_are_offered(tmp_path: Path) -> None:
    """bash is told the metrics that are left after a comma."""
    words = {"COMP_WORDS": "dpdau series --metrics dau,", "COMP_CWORD": "3"}

    assert ["dau,wau", "dau,mau"] == completed(tmp_path, "complete_bash", **words).split()


def test_what_is_offered_is_what_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each list has the words that its option takes, and those that begin as was typed."""
    import datetime as dt

    from dpdau import app
    from dpdau.domain import Scope
    from dpdau.eval.workloads import Pattern
    from dpdau.ingest.files import FileFormat

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "system_clock", lambda: dt.datetime(2026, 3, 31, tzinfo=dt.UTC))

    assert set(Pattern) == set(completion.patterns(""))
    assert set(FileFormat) == set(completion.formats(""))
    assert set(Scope) == set(completion.scopes(""))
    assert ["plan"] == completion.budgets("p")
    assert ["2026-03", "2026-02", "2026-01"] == completion.months("2026")
    assert "2025-03" == completion.months("")[-1]
    assert ["ports"] == completion.checks("po")
    assert [] == completion.segments("")
    monkeypatch.setenv("DIMENSIONS", "platform,country")
    assert ["platform="] == completion.segments("pl")
    monkeypatch.setenv("DIMENSIONS", "NOT A NAME")
    assert [] == completion.segments("")
