"""Summaries, files and what they are refused for."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpdau.errors import NotFoundError, StoreCorruptError, StoreUnavailableError
from dpdau.eval.results import about, read, summarize, write

Make = Callable[..., dict[str, Any]]
HEAD = about(
    experiment_id="x", preset="quick", seed=1, workers=1, seconds=2.04, command="dpdau eval"
)


def test_a_summary_pools_the_days_of_all_seeds(outcome: Make) -> None:
    """Two seeds with errors 1, 2, 3 and 4, 5, 6 of 100: one row, median 3.5 %."""
    (row,) = summarize([outcome([1, -2, 3]), outcome([4, 5, -6], seed=2)])

    assert 0.035 == row["relative_median"]
    assert (0.02, 0.05) == (row["relative_median_low"], row["relative_median_high"])
    assert (2, 6) == (row["seeds"], row["days"])


@pytest.mark.parametrize(
    ("errors", "epsilon", "claim"),
    [([4, 4], 1.0, True), ([5, 5], 1.0, False), ([4, 4], 1.01, None)],
)
def test_the_claim_is_strict(
    outcome: Make, errors: list[int], epsilon: float, claim: bool | None
) -> None:
    """Below 5 % at ε ≤ 1 holds, 5 % does not, and a larger ε says nothing about it."""
    (row,) = summarize([outcome(errors, estimate={"epsilon": epsilon})])

    assert row["claim"] is claim


def test_adversarial_rows_have_the_step(outcome: Make) -> None:
    """Before and after are the days around the middle one, as means over the seeds."""
    runs = [
        outcome([0, 0, error, 0], pattern="adversarial", removed=0.2, seed=error)
        for error in (-10, -20)
    ]
    (row,) = summarize(runs)

    assert (100.0, 100.0) == (row["exact_before"], row["exact_after"])
    assert (100.0, 85.0) == (row["before"], row["after"])


def test_configurations_are_kept_apart(outcome: Make) -> None:
    """Another ε, metric or number of users is another row."""
    rows = summarize(
        [
            outcome([1]),
            outcome([1], users=5),
            outcome([1], metric="mau"),
            outcome([1], estimate={"setting": 0.1}),
        ]
    )

    assert 4 == len(rows)


def test_what_was_written_is_read_back(outcome: Make, tmp_path: Path) -> None:
    """`read` gives the head, the summary and the outcomes that `write` took."""
    outcomes = [outcome([1, 2])]
    paths = write(tmp_path / "new", HEAD, outcomes, "# report\n")

    assert {"about": HEAD, "summary": summarize(outcomes), "outcomes": outcomes} == read(paths[0])
    assert "# report\n" == paths[2].read_text("utf-8")


def test_the_table_has_a_row_for_each_run(outcome: Make, tmp_path: Path) -> None:
    """The CSV file has one row for each seed and method, with the measures of that seed."""
    paths = write(tmp_path, HEAD, [outcome([1]), outcome([7], seed=2)], "")
    with paths[1].open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))

    assert [("1", "1.0"), ("2", "7.0")] == [(row["seed"], row["absolute_max"]) for row in rows]


def test_the_head_says_what_ran_where() -> None:
    """The command, the versions and the machine in words."""
    assert "dpdau eval" == HEAD["command"]
    assert {"dpdau", "python", "numpy", "opendp", "pyarrow", "sqlalchemy"} == set(HEAD["versions"])
    assert "processors" in HEAD["machine"]


def test_no_results_are_not_found(tmp_path: Path) -> None:
    """The error says which command makes them."""
    with pytest.raises(NotFoundError, match="dpdau eval"):
        read(tmp_path / "results.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"about": {"format": 99}})])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    """A file that is no result, or of another format, is not drawn from."""
    (tmp_path / "results.json").write_text(text)

    with pytest.raises(StoreCorruptError):
        read(tmp_path / "results.json")


def test_a_folder_that_cannot_be_made_is_said(outcome: Make, tmp_path: Path) -> None:
    """A file in the place of the folder is a store that is not available."""
    (tmp_path / "taken").write_text("")

    with pytest.raises(StoreUnavailableError):
        write(tmp_path / "taken", HEAD, [outcome([1])], "")
