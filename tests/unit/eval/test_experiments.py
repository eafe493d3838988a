"""The experiment on the product, from the grid to the rows of the results."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpdau.cli.experiments import open_app
from dpdau.domain import Metric
from dpdau.eval.experiments import run
from dpdau.eval.grid import Experiment, Level, Size, Workload
from dpdau.eval.methods import Method
from dpdau.eval.streams import Kind, Pattern, Removal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("quick-experiment")]


def test_exact_counts_are_those_of_the_stream(quick_results: Any) -> None:
    """What the product counted on each day is a recount of the events with plain sets."""
    plain = quick_results["outcomes"][0]
    stream = Workload("synthetic", 1_000, Removal(0.0), seed=5).stream()
    for metric, window in ((Metric.DAU, 1), (Metric.WAU, 7), (Metric.MAU, 30)):
        recount = [
            np.unique(stream.user[(stream.day > day - window) & (stream.day <= day)]).size
            for day in range(30)
        ]

        assert recount == plain["exact"][metric]
        assert recount == plain["ignored"][metric]


def test_removals_reach_the_exact_counts_and_not_the_ignoring_ones(quick_results: Any) -> None:
    """From the removal on the exact MAU lacks who was removed; before it both are the same."""
    adversarial = quick_results["outcomes"][1]
    exact, ignored = (np.array(adversarial[name]["mau"]) for name in ("exact", "ignored"))

    assert exact[:15].tolist() == ignored[:15].tolist()
    assert adversarial["removed_users"] == ignored[15] - exact[15] > 0


def test_the_plan_costs_its_epsilon_and_releases_three_numbers_a_day(quick_results: Any) -> None:
    """The product's own plan covers DAU, WAU and MAU of 30 days at ε = 1."""
    plan = [one for one in quick_results["outcomes"][0]["estimates"] if one["method"] == "plan"]

    assert {"dau", "wau", "mau"} == {one["metric"] for one in plan}
    assert {(1.0, 1e-6, 90, 30)} == {
        (one["epsilon"], one["delta"], one["numbers"], len(one["values"])) for one in plan
    }


def test_on_demand_costs_what_the_budget_says(quick_results: Any) -> None:
    """30 DAU releases at ε = 1 cost 30; MAU costs less than that, by composition."""
    found = {
        one["metric"]: one["epsilon"]
        for one in quick_results["outcomes"][0]["estimates"]
        if one["method"] == Method.ON_DEMAND
    }

    assert 30.0 == found["dau"]
    assert 1.0 < found["mau"] < 30.0


def test_estimates_are_near_the_exact_counts(quick_results: Any) -> None:
    """Each plan number is within eight of its stated half widths, of which one is 1.96 sigma.

    P(a normal variable is beyond 15 sigma) is below 1e-50.
    """
    for outcome in quick_results["outcomes"]:
        for one in outcome["estimates"]:
            if one["method"] == Method.PLAN and not outcome["removed"]:
                error = np.abs(np.subtract(one["values"], outcome["exact"][one["metric"]]))
                assert (error <= 8 * np.array(one["half_widths"])).all()


def test_a_retraction_is_carried_out_and_timed() -> None:
    """A `-` for all days takes users out of the exact counts; the timer gives the latencies."""
    tiny = Experiment(
        name="tiny",
        sizes=(Size(60, 0, 1),),
        removals=(Removal(0.5, Pattern.ADVERSARIAL, Kind.RETRACT),),
        levels=(Level("1.5", "1.0", "1.5"),),
        main=Level("1.5", "1.0", "1.5"),
        totals=(),
    )
    told: list[tuple[int, int]] = []
    (found,) = run(
        tiny,
        seed=2,
        open_app=open_app,
        # A timer that says a second more each time.
        timer=itertools.count().__next__,
        on_done=lambda done, total: told.append((done, total)),
    )

    assert [(1, 1)] == told
    assert found["removed_users"] > found["exact"]["mau"][14] - found["exact"]["mau"][15] > 0
    assert found["ignored"] is None
    assert found["timing"]["erase_ms"] is None
    assert 1_000.0 == found["timing"]["plan_step_ms"]


def test_results_stand_in_the_folder_of_the_experiment(quick_run: Path) -> None:
    """Three files under experiments/ID, and figures under plots/ID."""
    assert {"results.json", "results.csv", "report.md"} == {
        path.name for path in (quick_run / "experiments" / "trial").iterdir()
    }
    assert 10 == len(list((quick_run / "plots" / "trial").iterdir()))
