"""The commands of the experiment: names that are refused, and what stands where nothing ran."""

from pathlib import Path

import pytest

from dpdau.cli.root import run


@pytest.mark.parametrize("command", ["eval", "plots"])
@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment stays under its folder: the command ends with usage, and says the rule."""
    assert 2 == run([command, "--experiment-id", name])
    assert "--experiment-id" in capsys.readouterr().err


def test_figures_need_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`plots` before `eval` says which command to run, and makes no folder."""
    assert 2 == run(["plots", "--out", str(tmp_path)])
    assert "dpdau eval" in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())
