"""What follows from budgets: the published figures, with grants, and for open months."""

import datetime as dt
from pathlib import Path

from dpdau.app import App
from dpdau.app.showing import Showing
from dpdau.domain import Metric
from products import DAY, NOW, ZeroNoise, product, product_settings

MONTH = "2026-03"


def test_the_figures_are_the_published_ones(tmp_path: Path) -> None:
    """All budgets at once are composed in one way, and none is open yet."""
    with product(tmp_path, RELEASE_POLICY="plan") as app:
        rows = {one.budget: one for one in Showing(app).implied(MONTH)}

    assert [(9.19, 1e-6), (12.75, 1e-6), (64.03, 1e-6)] == [
        rows["all"].month,
        rows["all"].replace_one,
        rows["all"].year_together,
    ]
    assert (6.53, 1e-6) == rows["plan"].replace_one
    assert {False} == {one.is_open for one in rows.values()}


def test_a_grant_raises_what_is_promised(tmp_path: Path) -> None:
    """Two allowances of pure ε add up; those of ρ are converted together."""
    with product(tmp_path) as app:
        for name in ("dau", "wau"):
            app.grant(name, DAY, reason="an audit")
        rows = {one.budget: one for one in Showing(app).implied(MONTH)}

    assert (6.0, 2) == (rows["dau"].month[0], rows["dau"].allowances)
    assert 3.5 < rows["wau"].month[0] < 7.0
    assert rows["all"].month[0] > 12.19


def test_an_open_month_keeps_its_terms(tmp_path: Path) -> None:
    """Later settings are those of the budgets and the months that are not open."""
    for epsilon in (3.0, 1.0):
        settings = product_settings(tmp_path, RELEASE_POLICY="plan", PLAN_EPSILON=epsilon)
        with App.open(settings, clock=lambda: NOW, noise=ZeroNoise()).closing() as app:
            if epsilon == 3.0:
                app.open_month(MONTH)
            showing = Showing(app)
            now, later = (showing.implied(one)[0] for one in (MONTH, "2026-04"))
            newest = showing.newest_month()

    assert ((3.0, True), (1.0, False)) == (
        (now.month[0], now.is_open),
        (later.month[0], later.is_open),
    )
    assert MONTH == newest


def test_a_live_budget_stays_in_its_month(tmp_path: Path) -> None:
    """Also after the counter was turned off; the month after has none."""
    for changes in ({"LIVE_EPSILON": 1.0}, {}):
        settings = product_settings(tmp_path, RELEASE_POLICY="plan", **changes)
        with App.open(settings, clock=lambda: NOW, noise=ZeroNoise()).closing() as app:
            app.take_due()
            names = [
                [one.budget for one in Showing(app).implied(month)] for month in (MONTH, "2026-04")
            ]

    assert ["plan", *Metric, "live", "all"] == names[0]
    assert ["plan", *Metric, "all"] == names[1]


def test_the_newest_month_is_that_of_a_charge(tmp_path: Path) -> None:
    """This month where nothing was charged; else the last one with an open budget."""
    with product(tmp_path) as app:
        showing = Showing(app)
        empty = showing.newest_month()
        app.release(Metric.DAU, dt.date(2026, 2, 10))

        assert (MONTH, "2026-02") == (empty, showing.newest_month())
