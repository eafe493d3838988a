"""Month plans: one charge, days in order, noise drawn once and kept secret."""

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dpdau.activity.manifest import Manifest
from dpdau.app import App
from dpdau.domain import Metric, Segment, SeriesView, month_days
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    NotFoundError,
    ReleaseNotReadyError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.ledger.steps import OpenRequest
from dpdau.mechanisms.sampling import OpenDPNoise
from dpdau.plan import MonthPlan
from dpdau.release import NoiseDesk
from products import ZeroNoise, event, product, send

MONTH = "2026-02"
FIRST, LAST = month_days(MONTH)
AFTER = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
PLANNED = {"RELEASE_POLICY": "plan"}


def day(number: int) -> dt.date:
    """A day of the month, from 1."""
    return FIRST + dt.timedelta(days=number - 1)


def test_one_charge_pays_for_every_number_of_the_month(tmp_path: Path) -> None:
    """With noise off each day's three counts are exact, and the budget is charged once."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        send(app, [event(f"u{n}", day(n)) for n in range(1, 29)])
        send(app, [event("old", FIRST - dt.timedelta(days=3))])

        answer = app.release(Metric.MAU, LAST)
        released = app.series(list(Metric), FIRST, LAST)
        block = app.budget("plan", FIRST)

    by_day = {
        metric: [one.release.estimate for one in released if one.release.metric is metric]
        for metric in Metric
    }
    assert (28, False) == (answer.release.estimate, answer.replayed)
    assert [1] * 28 == by_day[Metric.DAU]
    assert [min(n, 7) + (n <= 4) for n in range(1, 29)] == by_day[Metric.WAU]
    assert [n + (n <= 27) for n in range(1, 29)] == by_day[Metric.MAU]
    assert (84, 3.0, 3.0, 0.0) == (
        block.release_count,
        block.epsilon_cap,
        block.epsilon_spent,
        block.epsilon_remaining,
    )


def test_days_are_taken_in_order_and_once(tmp_path: Path) -> None:
    """Asking for a closed day takes those before it; asking again gives the same bytes."""
    noise = OpenDPNoise()
    with product(tmp_path, now=AFTER, noise=noise, **PLANNED) as app:
        first = app.release(Metric.DAU, day(5)).release
        status = app.month(MONTH)
        early = app.release(Metric.WAU, day(2))
        log, _ = app.releases(after=None, limit=100)

    with product(tmp_path, now=AFTER, noise=noise, **PLANNED) as app:
        again = app.release(Metric.DAU, day(5))

    assert (5, 28, day(6)) == (status.days_taken, status.days, status.next_day)
    assert early.replayed
    assert list(range(15)) == [one.step for one in log]
    assert (first, True) == (again.release, again.replayed)


def test_an_open_day_is_refused_and_those_before_it_are_taken(tmp_path: Path) -> None:
    """A day that has not closed gives `not_ready`; nothing of it is counted."""
    now = dt.datetime(2026, 2, 10, 12, tzinfo=dt.UTC)
    with product(tmp_path, now=now, **PLANNED) as app:
        app.release(Metric.MAU, day(8))
        with pytest.raises(ReleaseNotReadyError):
            app.release(Metric.MAU, day(9))
        status = app.month(MONTH)

    assert (8, day(9)) == (status.days_taken, status.next_day)
    assert dt.datetime(2026, 2, 11, tzinfo=dt.UTC) == status.next_closes_at


def test_what_comes_late_or_goes_late_changes_no_number_of_the_month(tmp_path: Path) -> None:
    """Events for a taken day are held to the month's end; an erased user stays out of it."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        send(app, [event("stays", day(1)), event("goes", day(1)), event("erased", day(1))])
        app.release(Metric.MAU, day(3))
        send(app, [event("late", day(2)), event("goes", day(1), "-")])
        app.erase("erased")
        send(app, [event("erased", day(4)), event("erased", day(9))])
        mau = [app.release(Metric.MAU, day(n)).release.estimate for n in range(1, 29)]
        following = app.release(Metric.MAU, dt.date(2026, 3, 1)).release.estimate

    assert [3, 3, 3] + [2] * 25 == mau
    assert 3 == following


def test_segments_add_up_and_are_sticky(tmp_path: Path) -> None:
    """A user keeps its segment for the month; listed segments and the total are published."""
    ios, web = Segment("platform", "ios"), Segment("platform", "web")
    plan = {**PLANNED, "DIMENSIONS": "platform", "PLAN_SEGMENTS": "platform=ios,platform=web"}

    def seen(user: str, number: int, platform: str) -> dict[str, object]:
        return event(user, day(number), metadata={"platform": platform})

    with product(tmp_path, now=AFTER, **plan) as app:
        send(
            app, [seen("a", 1, "ios"), seen("b", 1, "web"), seen("c", 1, "tv"), event("d", day(1))]
        )
        app.release(Metric.DAU, day(1))
        send(app, [seen("d", 2, "ios"), seen("a", 3, "web")])
        rows = [
            [app.release(Metric.DAU, day(n), segment=one).release.estimate for n in range(1, 4)]
            for one in (None, ios, web)
        ]
        other = app.release(Metric.DAU, day(1), segment=Segment("platform", "tv")).release

    assert [[4, 1, 1], [1, 0, 1], [1, 0, 0]] == rows
    assert "discrete_laplace" == other.mechanism


def test_what_a_plan_does_not_publish_is_on_demand(tmp_path: Path) -> None:
    """Another window and a fresh number are charged to the metric's own budget."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        planned = app.release(Metric.MAU, LAST)
        wide = app.release(Metric.MAU, LAST, window_days=28)
        fresh = app.release(Metric.MAU, LAST, fresh=True)

    assert ["plan", "mau", "mau"] == [one.budget.metric for one in (planned, wide, fresh)]


def test_on_demand_answers_what_a_plan_released(tmp_path: Path) -> None:
    """Under the other policy a number that the plan released is given again at no cost."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        planned = app.release(Metric.MAU, LAST).release
    with product(tmp_path, now=AFTER) as app:
        again = app.release(Metric.MAU, LAST)
        fresh = app.release(Metric.MAU, LAST, fresh=True)
        newest = app.release(Metric.MAU, LAST)

    assert (planned, True, 0.0) == (
        again.release,
        again.replayed,
        again.budget.epsilon_remaining,
    )
    assert (fresh.release, True) == (newest.release, newest.replayed)
    assert planned.release_id != fresh.release.release_id


def test_a_price_is_shown_and_nothing_is_charged(tmp_path: Path) -> None:
    """The quote has the interval of every day; the month is not opened by it."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        quote = app.price_month(MONTH)
        one = app.price(Metric.MAU, LAST)
        fresh = app.price(Metric.MAU, LAST, fresh=True)
        with pytest.raises(NotFoundError):
            app.month(MONTH)

    assert [Metric.DAU, Metric.WAU, Metric.MAU] == [line.metric for line in quote.lines]
    assert all(28 == len(line.half_widths_95) for line in quote.lines)
    assert all(10 <= width <= 16 for line in quote.lines for width in line.half_widths_95)
    assert (3.0, 0.5) == (one.epsilon, fresh.epsilon)
    assert one.half_width_95 == quote.lines[2].half_widths_95[-1]
    assert [20 * max(line.half_widths_95) for line in quote.lines] == [
        line.smallest_population for line in quote.lines
    ]
    assert (True, False, 0.0) == (quote.affordable, quote.opened, quote.budget.epsilon_spent)


def test_opening_twice_charges_once(tmp_path: Path) -> None:
    """Opening an open plan changes nothing, also under other settings."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        first = app.open_month(MONTH)
    with product(tmp_path, now=AFTER, PLAN_EPSILON=1.0, **PLANNED) as app:
        again = app.open_month(MONTH)

    assert (first.opened_at, 3.0) == (again.opened_at, again.epsilon)
    assert 3.0 == again.budget.epsilon_spent


def test_a_month_far_ahead_or_purged_is_refused(tmp_path: Path) -> None:
    """What cannot be published in full is not sold."""
    with product(tmp_path, now=AFTER, RETENTION_DAYS=40, **PLANNED) as app:
        for month in ("2026-06", "2026-02", "2026-13", "march"):
            with pytest.raises(InvalidPlanError):
                app.open_month(month)
        assert 0.0 == app.budget("plan", FIRST).epsilon_spent


def test_noise_is_drawn_once_and_gone_at_the_end(tmp_path: Path) -> None:
    """One draw for the month, before any number; after the last day no secret is kept."""
    noise = ZeroNoise()
    with product(tmp_path, now=AFTER, noise=noise, **PLANNED) as app:
        app.open_month(MONTH)
        drawn = noise.draws
        assert app._store.secret(MONTH) is not None
        app.release(Metric.DAU, LAST)

        assert (84, 84) == (drawn, noise.draws)
        assert app._store.secret(MONTH) is None


@pytest.mark.parametrize("loss", ["secret gone", "secret swapped", "days forgotten"])
def test_a_store_that_is_not_the_one_of_the_plan_is_refused(tmp_path: Path, loss: str) -> None:
    """Noise is never drawn anew, and days are never fixed anew, for a plan that went on."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        app.release(Metric.DAU, day(3))
        store = app._store
        secret = store.secret(MONTH)
        assert secret is not None
        if loss == "secret gone":
            store.secret = lambda month: None  # type: ignore[method-assign]
        elif loss == "secret swapped":
            other = json.dumps({**json.loads(secret), "salt": "00"}).encode()
            store.secret = lambda month: other  # type: ignore[method-assign]
        else:
            store.frozen_through = lambda month: day(1)  # type: ignore[method-assign]
        with pytest.raises(StoreCorruptError):
            app.release(Metric.DAU, day(4))

        assert 3 == app.month(MONTH).days_taken


def test_a_crash_between_any_two_writes_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever opening or a day stops, the next attempt ends with one charge and one noise."""
    noise = OpenDPNoise()
    steps = ["store.open_month", "ledger.open_plan", "store.put_secret", "ledger.commit_noise"]
    steps += ["store.freeze", "store.contributions", "ledger.take_day"]
    for when in ("before", "after"):
        for step in steps:
            root = tmp_path / f"{when}-{step}"
            with product(root, now=AFTER, noise=noise, **PLANNED) as app:
                send(app, [event("a", day(1))])
                with monkeypatch.context() as patch:
                    _break(app, step, when, patch)
                    with pytest.raises(RuntimeError):
                        app.release(Metric.DAU, day(2))
            with product(root, now=AFTER, noise=noise, **PLANNED) as app:
                made = app.release(Metric.DAU, day(2)).release
                taken = app.month(MONTH).days_taken
                block = app.budget("plan", FIRST)
                report = app.ledger.verify()

            assert (2, 6, 3.0, ()) == (
                taken,
                block.release_count,
                block.epsilon_spent,
                report.problems,
            )
            assert 3 == made.step - 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_crash_left_of_a_finished_month_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The noise goes with the next turn if the process ended between the last day and its end."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        with monkeypatch.context() as patch:
            _break(app, "store.end_month", when, patch)
            with pytest.raises(RuntimeError):
                app.release(Metric.DAU, LAST)
        assert 28 == app.month(MONTH).days_taken
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        app.take_due()

        assert app._store.secret(MONTH) is None
        assert MONTH not in app._store.open_months()


def test_opening_a_month_destroys_what_a_crash_left_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where commands alone are used and no schedule runs, the next month does it."""
    with product(tmp_path, now=AFTER, **PLANNED) as app, monkeypatch.context() as patch:
        _break(app, "store.end_month", "before", patch)
        with pytest.raises(RuntimeError):
            app.release(Metric.DAU, LAST)
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        assert app._store.secret(MONTH) is not None
        app.release(Metric.DAU, dt.date(2026, 3, 1))

        assert app._store.secret(MONTH) is None
        assert ("2026-03",) == app._store.open_months()


def test_a_log_that_a_reader_keeps_is_emptied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the secret may still be in the write-ahead log, its month is not done with."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        with monkeypatch.context() as patch:

            def held(_self: object) -> None:
                raise StoreUnavailableError("a reader holds the log")

            patch.setattr(Manifest, "truncate_log", held)
            with pytest.raises(StoreUnavailableError):
                app.release(Metric.DAU, LAST)
        assert (MONTH,) == app._store.open_months()
        app.take_due()

        assert MONTH not in app._store.open_months()


def test_a_month_that_was_never_charged_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store was told before a charge failed binds nobody, under any settings."""
    with product(tmp_path, now=AFTER, **PLANNED) as app, monkeypatch.context() as patch:
        _break(app, "ledger.open_plan", "before", patch)
        with pytest.raises(RuntimeError):
            app.open_month(MONTH)
    with product(tmp_path, now=AFTER, MAU_WINDOW_DAYS=28, **PLANNED) as app:
        assert 0 == app.open_month(MONTH).days_taken
    other = tmp_path / "other"
    with product(other, now=AFTER, **PLANNED) as app, monkeypatch.context() as patch:
        _break(app, "ledger.open_plan", "before", patch)
        with pytest.raises(RuntimeError):
            app.open_month(MONTH)
    with product(other, now=AFTER) as app:
        app.take_due()

        assert () == app._store.open_months()


def test_the_noise_is_that_of_the_terms_that_were_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process charged other terms first, those are what is drawn for."""
    noise = OpenDPNoise()
    with product(tmp_path / "first", now=AFTER, PLAN_EPSILON=0.2, **PLANNED) as app:
        theirs = app.months.releaser.promise(MONTH)
    with product(tmp_path, now=AFTER, noise=noise, **PLANNED) as app:
        real = app.ledger.open_plan

        def raced(request: OpenRequest) -> bool:
            real(OpenRequest(theirs.plan_id, theirs.to_json(), theirs.budget, theirs.charge))
            return real(request)

        monkeypatch.setattr(app.ledger, "open_plan", raced)
        app.open_month(MONTH)
        secret = app._store.secret(MONTH)
        assert secret is not None
        drawn = np.array(json.loads(secret)["noise"], dtype=np.float64) / 2**32

    expected = theirs.stddev(27, 0, Metric.MAU)
    assert 0.5 < np.sqrt(np.square(drawn).mean()) / expected < 2


def test_a_plan_that_cannot_go_on_is_given_up(tmp_path: Path) -> None:
    """Its numbers and its charge stay, its other days are bought, and nothing waits for it."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        taken = app.release(Metric.DAU, day(3)).release
        real = app._store.secret
        app._store.secret = lambda month: None  # type: ignore[method-assign]
        with pytest.raises(StoreCorruptError, match="plan abandon"):
            app.release(Metric.DAU, day(4))
        with pytest.raises(InvalidPlanError, match="reason"):
            app.abandon_month(MONTH, reason=" ")
        status = app.abandon_month(MONTH, reason="the store was lost")
        app._store.secret = real  # type: ignore[method-assign]
        bought = app.release(Metric.DAU, day(4))
        again = app.release(Metric.DAU, day(3))
        for _ in range(2):
            with pytest.raises(InvalidPlanError):
                app.abandon_month(MONTH, reason="once more")
            with pytest.raises(InvalidPlanError):
                app.ledger.take_day(f"plan-{MONTH}", 9, lambda: pytest.fail("made a day"))
        app.take_due()

        assert (True, 3, None) == (status.abandoned, status.days_taken, status.next_day)
        assert ("dau", False) == (bought.budget.metric, bought.replayed)
        assert (taken, True, 3.0) == (again.release, again.replayed, again.budget.epsilon_spent)
        assert MONTH not in app._store.open_months()
        assert () == app.ledger.verify().problems
    with product(tmp_path / "other", now=AFTER, **PLANNED) as app, pytest.raises(NotFoundError):
        app.abandon_month(MONTH, reason="there is none")


def test_threads_may_take_the_last_days_together(tmp_path: Path) -> None:
    """A request and the schedule at the end of a month both get the stored numbers."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        app.release(Metric.DAU, day(24))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: app.release(Metric.DAU, LAST), range(8)))

    assert 1 == len({one.release.release_id for one in answers})


def test_another_zone_is_refused_in_mid_month(tmp_path: Path) -> None:
    """The days of an open plan are those of the zone that it was opened with."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        app.release(Metric.DAU, day(2))
    with (
        product(tmp_path, now=AFTER, TIMEZONE="Asia/Tokyo", **PLANNED) as app,
        pytest.raises(InvalidPlanError, match="TIMEZONE=UTC"),
    ):
        app.release(Metric.DAU, day(3))


def _break(app: App, step: str, when: str, patch: pytest.MonkeyPatch) -> None:
    """Makes one write fail, before or after it is done."""
    owner_name, name = step.split(".")
    owner = app._store if owner_name == "store" else app.ledger
    real: Callable[..., object] = getattr(owner, name)

    def broken(*args: object, **more: object) -> object:
        if when == "after":
            real(*args, **more)
        raise RuntimeError(step)

    patch.setattr(owner, name, broken)


def test_a_plan_needs_its_allowance(tmp_path: Path) -> None:
    """A month whose budget opened smaller refuses the plan, with the block; nothing is drawn."""
    noise = ZeroNoise()
    with product(tmp_path, now=AFTER, PLAN_EPSILON=1.0, **PLANNED) as app:
        promised = app.months.releaser.promise(MONTH)
        app.ledger.open_plan(_request_of_another(promised))
    with product(tmp_path, now=AFTER, noise=noise, **PLANNED) as app:
        with pytest.raises(BudgetExhaustedError) as caught:
            app.open_month(MONTH)

        assert "plan" == caught.value.facts["budget"]["metric"]  # type: ignore[index]
        assert 0 == noise.draws


def _request_of_another(promised: object) -> object:
    """A charge of the same budget under another plan's id."""
    assert isinstance(promised, MonthPlan)
    return OpenRequest("plan-of-a-test", promised.to_json(), promised.budget, promised.charge)


def test_views_are_made_from_the_releases_alone(tmp_path: Path) -> None:
    """Consistent numbers are nested; smoothed ones say so; the released ones stay as they are."""
    with product(tmp_path, now=AFTER, noise=OpenDPNoise(), **PLANNED) as app:
        app.release(Metric.DAU, LAST)
        raw = app.series(list(Metric), FIRST, LAST)
        app.release(Metric.WAU, day(9), fresh=True)
        shown = {
            view: app.series(list(Metric), FIRST, LAST, view=view)
            for view in (SeriesView.CONSISTENT, SeriesView.SMOOTHED)
        }
        spent = app.budget("plan", FIRST).epsilon_spent

    assert any(one.release.estimate < 0 for one in raw)
    for view, answers in shown.items():
        assert {view.value} == {one.release.status for one in answers}
        assert [one.release.release_id for one in raw] == [
            one.release.release_id for one in answers
        ]
    triples = [shown[SeriesView.CONSISTENT][at : at + 3] for at in range(0, 84, 3)]
    for triple in triples:
        values = [one.release.estimate for one in triple]
        assert values == sorted(values) and values[0] >= 0
    assert 3.0 == spent


def test_the_desk_gives_noise_out_on_a_clock(tmp_path: Path) -> None:
    """Whoever waits for noise waits for whole ticks, however long drawing took."""
    now, waits = [100.0], []

    class Slow(ZeroNoise):
        """Takes 0.3 seconds a draw."""

        def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
            now[0] += 0.3
            return super().discrete_laplace(scale, size)

    with product(tmp_path, now=AFTER, **PLANNED) as app:
        releaser = app.months.releaser
        desk = NoiseDesk(Slow(), 0.25, timer=lambda: now[0], pause=waits.append)
        plan, strategy = releaser.promise(MONTH), releaser.strategies(28, 30)
        drawn = desk.draw(lambda source: plan.draw(source, strategy))

    assert 84 == len(drawn)
    assert [0.2] == [round(one, 6) for one in waits]
