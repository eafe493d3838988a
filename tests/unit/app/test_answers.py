"""Stored numbers: what an event loop may read by itself."""

from pathlib import Path

import pytest

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError
from products import product


def test_a_stored_number_is_the_released_one(tmp_path: Path) -> None:
    """Nothing is stored before the release; afterwards it is the same number, at no charge."""
    with product(tmp_path, RELEASE_POLICY="on_demand") as app:
        day = app.calendar.last_closed_day()
        assert app.stored(Metric.DAU, day) is None
        made = app.release(Metric.DAU, day)
        again, known = app.release(Metric.DAU, day), app.stored(Metric.DAU, day)
        other = app.stored(Metric.WAU, day)

    assert (False, True) == (made.replayed, again.replayed)
    assert again == known
    assert other is None


def test_nothing_is_read_at_once_before_it_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its budget was charged since it was told, or exact values are shown, it is None."""
    with product(tmp_path, RELEASE_POLICY="on_demand") as app:
        day = app.calendar.last_closed_day()
        app.release(Metric.DAU, day)
        with monkeypatch.context() as patch:
            patch.setattr(app, "_unsafe_debug", True)
            assert app.stored(Metric.DAU, day) is None
        app._singles.answer(app._question(Metric.DAU, day, None, None), fresh=True)
        assert app.stored(Metric.DAU, day) is None
        again = app.release(Metric.DAU, day)
        assert again == app.stored(Metric.DAU, day)
        monkeypatch.setattr(type(app), "is_quick", False)
        assert app.stored(Metric.DAU, day) is None


def test_a_budget_has_a_name_that_is_known(tmp_path: Path) -> None:
    """Another word names no budget; the one of plans cannot be granted more."""
    with product(tmp_path) as app:
        with pytest.raises(InvalidPlanError, match="Expected a budget of dau, wau, mau"):
            app.budget("yau")
        with pytest.raises(InvalidPlanError, match="a grant would buy nothing more"):
            app.grant("plan", app.calendar.today(), reason="more")
