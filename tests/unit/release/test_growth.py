"""Growth: four numbers in one transaction, for one charge, that add up as published."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpdau import plan as plans
from dpdau.domain import GROWTH, Figure, GrowthAnswer, Metric, Window
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    ReleaseNotReadyError,
    StoreUnavailableError,
)
from dpdau.mechanisms.gaussian import DiscreteGaussian, sum_half_width
from dpdau.mechanisms.sampling import OpenDPNoise
from products import DAY, NOW, event, product, send


def days_back(*days: int) -> list[dt.date]:
    """Days before the day of the tests."""
    return [DAY - dt.timedelta(days=back) for back in days]


USERS = {
    "new": days_back(0, 29),
    "retained": days_back(29, 30),
    "retained, long known": days_back(3, 59, 60),
    "resurrected": days_back(5, 60),
    "resurrected, after a year": days_back(29, 366),
    "resurrected, after two": days_back(0, 731),
    "churned": days_back(30),
    "churned, long known": days_back(59, 90),
    "gone": days_back(60, 366),
    "to come": days_back(-1),
}
CELLS = {"new": 1, "retained": 2, "resurrected": 3, "churned": 2}
EVENTS = [event(user, day) for user, days in USERS.items() for day in days]


class CountingNoise:
    """Noise 10, 20, 30, … and the scale of each draw."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
        """The next multiples of 10."""
        first = len(self.scales) + 1
        self.scales += [scale] * size
        return np.arange(first, first + size, dtype=np.int64) * 10

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """Not for growth."""
        raise AssertionError(f"growth asked for {size} draws of scale {scale}")


def estimates(answer: GrowthAnswer) -> dict[str, int]:
    """The published cells by name."""
    return {cell.metric.value: cell.estimate for cell in answer.cells}


def test_each_user_is_in_its_cell(tmp_path: Path) -> None:
    """With noise off, the cells are the users of each kind and the totals those of the windows."""
    with product(tmp_path) as app:
        send(app, EVENTS)
        answer = app.growth(DAY)
        now = app.release(Metric.MAU, DAY).release
        then = app.release(Metric.MAU, DAY - dt.timedelta(days=30)).release

    assert CELLS == estimates(answer)
    assert {Window(DAY, 30)} == {cell.window for cell in answer.cells}
    assert (now.estimate, now.window) == (answer.current.estimate, answer.current.window)
    assert (then.estimate, then.window) == (answer.previous.estimate, answer.previous.window)


def test_each_cell_has_noise_of_its_own(tmp_path: Path) -> None:
    """One draw a cell, of the σ that is charged, is added to its count, and nothing else is."""
    noise = CountingNoise()
    with product(tmp_path, noise=noise) as app:
        send(app, EVENTS)
        answer = app.growth(DAY)
        stored = app.ledger.find_plan(answer.cells[0].plan_id)

    assert stored is not None
    assert [float(stored.event.sigma)] * 4 == noise.scales  # type: ignore[union-attr]
    expected = {
        name: count + 10 * place for place, (name, count) in enumerate(CELLS.items(), start=1)
    }
    assert expected == estimates(answer)


def test_one_charge_pays_for_all_four(tmp_path: Path) -> None:
    """The MAU budget shows one charge of ε and four releases, steps 0..3 of one plan."""
    with product(tmp_path) as app:
        answer = app.growth(DAY)
        ((plan,), _) = app.plans(after=None, limit=10)
        assert app.ledger.verify().ok

    assert ("growth", "mau:2026-03") == (plan["kind"], plan["budget_id"])
    assert (1, 1) == (
        plan["charge"]["dp_event"]["count"],
        plan["charge"]["dp_event"]["sensitivity"],
    )
    assert (0.5, 4) == (answer.budget.epsilon_spent, answer.budget.release_count)
    assert [0, 1, 2, 3] == [cell.step for cell in answer.cells]
    assert {(plan["plan_id"], 0.5, 1e-6)} == {
        (cell.plan_id, cell.epsilon, cell.delta) for cell in answer.cells
    }


def test_the_identities_hold_on_what_is_published(tmp_path: Path) -> None:
    """With real noise: current − previous = new + resurrected − churned, to the last user."""
    with product(tmp_path, noise=OpenDPNoise()) as app:
        send(app, EVENTS)
        for window_days in range(1, 6):
            answer = app.growth(DAY, window_days=window_days)
            cells = estimates(answer)
            change = cells["new"] + cells["resurrected"] - cells["churned"]
            assert change == answer.current.estimate - answer.previous.estimate
            assert answer.current.estimate == change + cells["retained"] + cells["churned"]


def test_the_totals_have_the_noise_of_their_cells(tmp_path: Path) -> None:
    """Three cells and two: the standard deviations add in squares, and the intervals are exact."""
    with product(tmp_path) as app:
        answer = app.growth(DAY)
    cell = answer.cells[0]
    sigma = plans.growth(cell.window, edition=0, timezone="UTC", terms=app._terms).mechanism.sigma

    for total, terms in ((answer.current, 3), (answer.previous, 2)):
        assert total.noise_stddev == pytest.approx(cell.noise_stddev * terms**0.5)
        assert sum_half_width(sigma, terms) == total.half_width_95


def test_asking_again_costs_nothing_and_answers_the_same(tmp_path: Path) -> None:
    """A second question replays all four numbers, also after the data and the settings changed."""
    with product(tmp_path, noise=OpenDPNoise()) as app:
        send(app, EVENTS)
        first = app.growth(DAY)
        send(app, [event("one more")])
        second = app.growth(DAY)
    with product(tmp_path, GRACE_HOURS=700, EPSILON_MAU=0.2) as app:
        third = app.growth(DAY)

    assert (False, True, True) == (first.replayed, second.replayed, third.replayed)
    for again in (second, third):
        assert (first.cells, first.current, first.previous) == (
            again.cells,
            again.current,
            again.previous,
        )
    assert first.budget == second.budget


def test_fresh_numbers_have_their_own_charge(tmp_path: Path) -> None:
    """`fresh` buys four new numbers; from then on they are the answer."""
    with product(tmp_path) as app:
        first = app.growth(DAY)
        send(app, [event("a")])
        bought = app.growth(DAY, fresh=True)
        again = app.growth(DAY)
        other = app.growth(DAY, window_days=28)

    assert [0, 1, 1] == [estimates(one)["new"] for one in (first, bought, again)]
    assert bought.cells == again.cells
    assert 12 == other.budget.release_count


def test_an_open_day_is_refused_whole(tmp_path: Path) -> None:
    """Before the closing moment nothing is charged; a day outside the calendar is no window."""
    with product(tmp_path) as app:
        with pytest.raises(ReleaseNotReadyError):
            app.growth(NOW.date())
        with pytest.raises(InvalidPlanError):
            app.growth(NOW.date(), window_days=65)
        with pytest.raises(InvalidPlanError):
            app.growth(dt.date(1900, 1, 1))

        assert 0 == app.budget("mau", NOW.date()).release_count


def test_the_window_before_has_to_be_kept(tmp_path: Path) -> None:
    """Both windows lie within what is kept, or the later one's new users would be too many."""
    with product(tmp_path, RETENTION_DAYS=64) as app:
        answer = app.growth(DAY, window_days=30)
        with pytest.raises(InvalidPlanError, match="RETENTION_DAYS"):
            app.growth(DAY, window_days=31)

    assert 4 == answer.budget.release_count


def test_a_refusal_charges_nothing_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of budget, no count is read, the ledger does not change, and the error says how much."""
    with product(tmp_path, MAU_BUDGET_TOTAL=0.6) as app:
        app.growth(DAY)
        before = app.budget("mau", DAY)
        monkeypatch.setattr("dpdau.aggregates.growth_cells", _must_not_be_called)
        with pytest.raises(BudgetExhaustedError) as caught:
            app.growth(DAY, fresh=True)

        assert before == app.budget("mau", DAY)
        assert app.ledger.verify().ok
    assert "mau" == caught.value.facts["budget"]["metric"]  # type: ignore[index]


def test_a_failed_count_leaves_no_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one cell cannot be made, the charge and the other cells are rolled back with it."""
    steps = itertools.count()
    step = DiscreteGaussian.step

    def third_fails(*args: Any) -> Any:
        if next(steps) == 2:
            raise StoreUnavailableError("Expected a count, found none.")
        return step(*args)

    with product(tmp_path) as app:
        with monkeypatch.context() as patch:
            patch.setattr(DiscreteGaussian, "step", third_fails)
            with pytest.raises(StoreUnavailableError):
                app.growth(DAY)

        assert 0 == app.budget("mau", DAY).release_count
        assert ([], None) == app.releases(after=None, limit=10)
        assert not app.growth(DAY).replayed


def test_the_cells_are_in_the_release_log(tmp_path: Path) -> None:
    """All four are found among the releases, and in no series of metrics."""
    with product(tmp_path) as app:
        answer = app.growth(DAY)
        log, _ = app.releases(after=None, limit=10)
        series = app.series(list(Metric), DAY, DAY)

    assert list(answer.cells) == log
    assert [] == series
    assert (Figure.NEW, Figure.CHURNED) == (GROWTH[0], GROWTH[3])


def _must_not_be_called(*_: Any, **__: Any) -> None:
    raise AssertionError("a count was read")
