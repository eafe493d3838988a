"""A month from a file: one transaction for all of it, refused by the ledger alone."""

import datetime as dt
import threading
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.app.one_shot import OneShot, OneShotAnswer
from dpdau.app.reading import Reading, Source, with_terms
from dpdau.domain import Metric, Release, month_days
from dpdau.errors import (
    DpdauError,
    InvalidPlanError,
    InvalidSettingError,
    LedgerCorruptError,
    NotFoundError,
    ReleaseNotReadyError,
    UnsupportedMediaError,
)
from dpdau.ingest.event_tables import EventTables
from dpdau.ledger import release_to_json
from dpdau.ledger.peek import may_have_plan
from dpdau.release import NoiseDesk, months
from dpdau.settings import Settings
from products import ZeroNoise, event, product, product_settings, send

MONTH = "2026-02"
FIRST, LAST = month_days(MONTH)
AFTER = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
ALL = list(Metric)


def write(path: Path, rows: Iterable[tuple[str, str, dt.date]]) -> Path:
    """A Parquet file of events."""
    names = ("user_id", "op", "day")
    columns = [pa.array(one) for one in zip(*rows, strict=True)]
    pa.parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    return path


def some(path: Path) -> Path:
    """A file in which one user more is active on each day of the month."""
    return write(path, [(f"u{n}", "+", FIRST + dt.timedelta(days=n)) for n in range(28)])


def run(
    settings: Settings, path: Path, *, now: dt.datetime = AFTER, month: str = MONTH
) -> OneShotAnswer:
    """Releases a month of a file with no noise."""
    noise = ZeroNoise()
    with (
        OneShot(settings, clock=lambda: now, desk=NoiseDesk(noise, seconds=0.0)) as shot,
        Reading(settings, month, Source(path=path), clock=lambda: now) as reading,
    ):
        return shot.release(reading)


def charged(settings: Settings) -> tuple[int, int]:
    """Charges and releases of a ledger that verifies."""
    with OneShot(settings, clock=lambda: AFTER) as shot:
        report = shot._ledger.verify()
    assert report.ok, report
    return report.charges, report.releases


def test_a_file_becomes_the_numbers_of_its_month(tmp_path: Path) -> None:
    """With noise off every count is exact; one charge, and whoever reads the ledger sees them."""
    settings = product_settings(tmp_path, RELEASE_POLICY="plan")
    answer = run(settings, some(tmp_path / "e.parquet"))
    with product(tmp_path, now=AFTER, RELEASE_POLICY="plan") as app:
        series = [one.release for one in app.series(ALL, FIRST, LAST)]
        mau = app.release(Metric.MAU, LAST)

    made = [one.release for one in answer.answers]
    by_metric = {
        metric: [one.estimate for one in made if one.metric is metric] for metric in Metric
    }
    assert [1] * 28 == by_metric[Metric.DAU]
    assert [min(n, 7) for n in range(1, 29)] == by_metric[Metric.WAU]
    assert list(range(1, 29)) == by_metric[Metric.MAU]
    assert {one.release_id for one in made} == {one.release_id for one in series}
    assert (28, True, False) == (mau.release.estimate, mau.replayed, answer.replayed)
    assert (1, 84) == charged(settings)


def test_the_same_month_again_is_the_stored_one(tmp_path: Path) -> None:
    """The file is not even opened; the bytes are the same, and nothing is charged."""
    settings = product_settings(tmp_path)
    first = run(settings, some(tmp_path / "e.parquet"))
    again = run(settings, tmp_path / "no such file")

    bytes_of = [[release_to_json(one.release) for one in each.answers] for each in (first, again)]
    assert bytes_of[0] == bytes_of[1]
    assert (False, True, None) == (first.replayed, again.replayed, again.counted)
    assert (1, 84) == charged(settings)


def test_segments_are_those_of_the_labels(tmp_path: Path) -> None:
    """Each user counts in one listed segment, and everyone in the total."""
    lines = [
        '{"user_id": "a", "op": "+", "day": "2026-02-03", "metadata": {"platform": "ios"}}',
        '{"user_id": "b", "op": "+", "day": "2026-02-03", "metadata": {"platform": "web"}}',
        '{"user_id": "c", "op": "+", "day": "2026-02-03"}',
    ]
    path = tmp_path / "e.ndjson"
    path.write_text("\n".join(lines))
    settings = product_settings(
        tmp_path, DIMENSIONS="platform", PLAN_SEGMENTS="platform=ios,platform=web"
    )
    answer = run(settings, path)

    day = [one.release for one in answer.answers if one.release.window.end == dt.date(2026, 2, 3)]
    found = {(str(one.segment), one.metric.value): one.estimate for one in day}
    assert {"None": 3, "platform=ios": 1, "platform=web": 1} == {
        name: found[name, "dau"] for name in ("None", "platform=ios", "platform=web")
    }


@pytest.mark.parametrize(
    ("now", "month"),
    [(AFTER, "2026-03"), (dt.datetime(2026, 3, 1, 23, tzinfo=dt.UTC), MONTH)],
    ids=["not over", "not closed"],
)
def test_a_month_that_has_not_closed_is_refused(
    tmp_path: Path, now: dt.datetime, month: str
) -> None:
    """Its last day may still get events; nothing is charged."""
    settings = product_settings(tmp_path)
    with pytest.raises(ReleaseNotReadyError):
        run(settings, some(tmp_path / "e.parquet"), now=now, month=month)
    assert (0, 0) == charged(settings)


def test_a_month_that_goes_on_over_a_store_is_refused(tmp_path: Path) -> None:
    """A plan that a service takes day by day is not replaced by a file; the service goes on."""
    with product(tmp_path, now=AFTER, RELEASE_POLICY="plan") as app:
        send(app, [event("a", FIRST)])
        app.release(Metric.DAU, FIRST)
        with pytest.raises(InvalidPlanError, match="days to come"):
            run(app.settings, some(tmp_path / "e.parquet"))
        app.take_due()
        assert 84 == len(app.series(ALL, FIRST, LAST))


def test_a_month_that_was_given_up_is_not_bought_again(tmp_path: Path) -> None:
    """Its charge was made and some of its days may be published: a file does not replace it."""
    with product(tmp_path, now=AFTER, RELEASE_POLICY="plan") as app:
        send(app, [event("a", FIRST)])
        app.release(Metric.DAU, FIRST)
        app.abandon_month(MONTH, reason="the store is gone")
        with pytest.raises(InvalidPlanError, match="was given up"):
            run(app.settings, some(tmp_path / "e.parquet"))
        settings = app.settings
    assert (1, 3) == charged(settings)


def test_other_terms_than_those_of_the_plan_are_refused(tmp_path: Path) -> None:
    """A month has one plan: another ε does not get the stored numbers, nor new ones."""
    settings = product_settings(tmp_path)
    run(settings, some(tmp_path / "e.parquet"))
    other = with_terms(settings, epsilon=Decimal("1.5"), delta=None)

    with pytest.raises(InvalidPlanError, match=r"epsilon 3.*found 1\.5"):
        run(other, tmp_path / "e.parquet")
    assert (1, 84) == charged(settings)


def test_a_price_of_ones_own_is_charged(tmp_path: Path) -> None:
    """ε and δ of the command are those of the releases, exactly, and of the budget."""
    settings = with_terms(product_settings(tmp_path), epsilon=Decimal("1.5"), delta=Decimal("1e-7"))
    answer = run(settings, some(tmp_path / "e.parquet"))

    release, block = answer.answers[0].release, answer.answers[0].budget
    assert (1.5, 1e-7) == (release.epsilon, release.delta)
    assert (1.5, 1.5, 0.0) == (block.epsilon_cap, block.epsilon_spent, block.epsilon_remaining)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(Decimal(0), None), (Decimal(51), None), (None, Decimal(0)), (None, Decimal("0.01"))],
)
def test_a_price_out_of_range_is_refused(
    tmp_path: Path, epsilon: Decimal | None, delta: Decimal | None
) -> None:
    """The range is that of the settings."""
    with pytest.raises(InvalidSettingError):
        with_terms(product_settings(tmp_path), epsilon=epsilon, delta=delta)


def test_a_damaged_file_charges_nothing(tmp_path: Path) -> None:
    """Whatever is wrong with the file, the ledger stays as it was, and the error names no user."""
    settings = product_settings(tmp_path)
    path = some(tmp_path / "e.parquet")
    content = path.read_bytes()
    for damage, error in [
        (content[: len(content) // 2], UnsupportedMediaError),
        (content[:20] + b"\xff" * 60 + content[80:], UnsupportedMediaError),
        (b"PAR1", UnsupportedMediaError),
    ]:
        path.write_bytes(damage)
        with pytest.raises(error) as caught:
            run(settings, path)
        assert "u1" not in str(caught.value)
    with pytest.raises(NotFoundError):
        run(settings, tmp_path / "none.parquet")
    assert (0, 0) == charged(settings)


def test_a_refusal_does_not_look_at_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The charge is checked before a number is made, and one that does not fit makes none."""
    settings = product_settings(tmp_path)
    worded: list[int] = []
    monkeypatch.setattr("dpdau.release.one_shot.numbers", lambda *_args, **_more: worded.append(1))
    monkeypatch.setattr("dpdau.ledger.steps.fits", lambda *_: False)
    with pytest.raises(DpdauError) as caught:
        run(settings, some(tmp_path / "e.parquet"))
    assert ("budget_exhausted", []) == (caught.value.code, worded)
    assert (0, 0) == charged(settings)


def test_what_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the last day takes the charge and the other days back."""
    settings = product_settings(tmp_path)

    def failing(plan: Any, index: int, *args: Any, **more: Any) -> list[Release]:
        if index == 27:
            raise InvalidPlanError("planted")
        return months.numbers(plan, index, *args, **more)

    monkeypatch.setattr("dpdau.release.one_shot.numbers", failing)
    with pytest.raises(InvalidPlanError, match="planted"):
        run(settings, some(tmp_path / "e.parquet"))
    assert (0, 0) == charged(settings)


def test_two_at_once_make_one_charge(tmp_path: Path) -> None:
    """Whoever is second gets what the first one stored."""
    settings = product_settings(tmp_path)
    path = some(tmp_path / "e.parquet")
    charged(settings)
    barrier, answers = threading.Barrier(2), []

    def one() -> None:
        noise = NoiseDesk(ZeroNoise(), seconds=0.0, pause=lambda _: None)
        with (
            OneShot(settings, clock=lambda: AFTER, desk=noise) as shot,
            Reading(settings, MONTH, Source(path=path), clock=lambda: AFTER) as reading,
        ):
            answers.append(shot.release(reading, watch=lambda _: barrier.wait(30)))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    first, second = answers
    assert {False, True} == {first.replayed, second.replayed}
    assert [one.release for one in first.answers] == [one.release for one in second.answers]
    assert (1, 84) == charged(settings)


def test_a_store_whose_ledger_is_gone_gets_no_new_one(tmp_path: Path) -> None:
    """A new ledger would refund what was spent on the days of the store."""
    with product(tmp_path, now=AFTER) as app:
        send(app, [event("a", FIRST)])
        app.release(Metric.DAU, FIRST)
        settings = app.settings
    for path in (settings.DATA_DIR / "ledgers").iterdir():
        path.unlink()
    (settings.DATA_DIR / "ledger.mark.json").unlink()

    with pytest.raises(LedgerCorruptError):
        run(settings, some(tmp_path / "e.parquet"))


def test_nothing_of_the_file_is_left_behind(tmp_path: Path) -> None:
    """No byte of a user id is under `DATA_DIR`, and no store or key was made."""
    settings = product_settings(tmp_path)
    who = [f"somebody-with-a-long-name-{n}@example.com" for n in range(50)]
    run(settings, write(tmp_path / "e.parquet", [(one, "+", FIRST) for one in who]))

    files = [path for path in settings.DATA_DIR.rglob("*") if path.is_file()]
    assert not [path for path in files if b"somebody" in path.read_bytes()]
    assert not [path for path in files if path.parent.name in {"activity", "keyring"}]


def test_reading_begins_early_only_where_the_ledger_has_no_plan(tmp_path: Path) -> None:
    """What is certainly not stored is read at once; the rest waits for the ledger."""
    settings = product_settings(tmp_path)
    path = some(tmp_path / "e.parquet")
    begun: list[bool] = []
    for _ in range(2):
        with Reading(settings, MONTH, Source(path=path), clock=lambda: AFTER) as reading:
            reading.start_early()
            begun.append(reading.counted() is not None)
        run(settings, path)

    assert [True, False] == begun
    assert may_have_plan("postgresql://elsewhere", f"plan-{MONTH}")
    assert not may_have_plan(settings.ledger_url, "plan-2026-01")


def test_whoever_gives_up_does_not_wait_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that no statement heard is repeated, until the counting ends."""
    settings = product_settings(tmp_path)
    began, heard = threading.Event(), []
    interrupt = EventTables.interrupt

    def slow(self: EventTables) -> None:
        began.set()
        self.execute("select sum(sqrt(range)) from range(1_000_000_000)")

    def hard_of_hearing(self: EventTables) -> None:
        heard.append(1)
        if len(heard) > 1:
            interrupt(self)

    monkeypatch.setattr(EventTables, "fold", slow)
    monkeypatch.setattr(EventTables, "interrupt", hard_of_hearing)
    source = Source(path=some(tmp_path / "e.parquet"))
    with Reading(settings, MONTH, source, clock=lambda: AFTER) as reading:
        reading.start()
        assert began.wait(30)
    with pytest.raises(UnsupportedMediaError, match="Stopped"):
        reading.counted()
    assert len(heard) > 1


def test_the_noise_is_drawn_and_then_gone(tmp_path: Path) -> None:
    """With noise on the numbers differ from the counts; its commitment is in the ledger."""
    settings = product_settings(tmp_path)
    path = some(tmp_path / "e.parquet")
    with (
        OneShot(settings, clock=lambda: AFTER) as shot,
        Reading(settings, MONTH, Source(path=path), clock=lambda: AFTER) as reading,
    ):
        answer = shot.release(reading)
        stored = shot._releaser.find(MONTH)

    daily = [one.release.estimate for one in answer.answers if one.release.metric is Metric.DAU]
    # The standard deviation is 6.4: 28 noisy counts are all 1 with probability below 1e-30.
    assert [1] * 28 != daily and max(abs(one - 1) for one in daily) < 200
    assert stored is not None and stored.commitment is not None and stored.steps_taken == 84
