"""The report in Markdown: its figures are those of the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpdau.eval.report import markdown, workload_title

Make = Callable[..., dict[str, Any]]
HEAD = {
    "experiment_id": "x",
    "preset": "quick",
    "seed": 1,
    "workers": 1,
    "seconds": 2.0,
    "command": "dpdau eval --quick --seed 1",
    "versions": {"dpdau": "0"},
    "machine": "2 processors",
}


def rows_of(text: str, *, starts: str) -> list[list[str]]:
    """The cells of the table rows that start with a cell."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {starts} |")
    ]


def test_the_claim_is_said_per_configuration(outcome: Make) -> None:
    """A configuration that holds says yes, one that does not says no, both with the error."""
    text = markdown(HEAD, [outcome([1, 1]), outcome([9, 9], users=5_000)])

    assert [["1,000 users", "none", "yes 1.00%", "–", "–"]] == rows_of(text, starts="1,000 users")[
        :1
    ]
    assert [["5,000 users", "none", "**no** 9.00%", "–", "–"]] == rows_of(
        text, starts="5,000 users"
    )[:1]
    assert ["month plan", "DAU", "1 of 2"] in rows_of(text, starts="month plan")


def test_a_method_that_spends_more_makes_no_claim(outcome: Make) -> None:
    """On demand, the total is stated in place of a verdict."""
    dear = outcome([1], estimate={"method": "on_demand", "setting": 0.3, "epsilon": 9.0})
    text = markdown(HEAD, [outcome([1]), dear])

    assert ["on demand, ε each day", "DAU", "none: at least ε 9"] in rows_of(
        text, starts="on demand, ε each day"
    )


def test_a_grid_without_adversaries_says_so(outcome: Make) -> None:
    """There is no table around a removal that did not happen."""
    assert "This grid has no such removal." in markdown(HEAD, [outcome([1])])


def test_the_report_has_the_command_and_the_machine(outcome: Make) -> None:
    """A reader can run it again, and knows where it ran."""
    text = markdown(HEAD, [outcome([1])])

    assert "`dpdau eval --quick --seed 1`" in text
    assert "2 processors" in text


def test_a_workload_is_called_by_its_data() -> None:
    """Synthetic streams by their users, real data by its name."""
    assert "10,000 users" == workload_title({"data": "synthetic", "users": 10_000})
    assert "cdnow" == workload_title({"data": "cdnow", "users": 0})


@pytest.mark.slow
@pytest.mark.xdist_group("quick-experiment")
def test_the_figures_of_a_run_are_those_of_its_results(quick_run: Path, quick_results: Any) -> None:
    """Each row of the comparison has the errors of the summary row that it stands for."""
    text = (quick_run / "experiments" / "trial" / "report.md").read_text("utf-8")
    for row in quick_results["summary"]:
        if row["method"] == "plan":
            place = rows_of(text, starts="1,000 users")
            assert any(f"{row['relative_median']:.2%}" in cell for line in place for cell in line)
        if row["method"] == "plan" and not row["removed"]:
            assert f"| {row['absolute_median']:,.1f} | {row['absolute_p95']:,.1f} |" in text
    assert quick_results["about"]["command"] in text
