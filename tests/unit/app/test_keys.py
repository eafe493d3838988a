"""The keys of a running product: when they change, who may change them, and what is recorded."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpdau.app import App
from dpdau.app.keys import Keys, overlap_of
from dpdau.domain import month_days
from dpdau.errors import (
    DataDirInUseError,
    InvalidPlanError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.ingest.batch import build
from dpdau.ingest.event import decode_objects
from dpdau.ingest.rules import Rules
from dpdau.pseudonym import Keyring
from products import ZeroNoise, event, product_settings, send

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = START.date()
SERVICE = "http://127.0.0.1:1"


class Clock:
    """A clock that stands where it is put, in days from the start."""

    def __init__(self) -> None:
        self.days = 0

    def __call__(self) -> dt.datetime:
        """The time."""
        return START + dt.timedelta(days=self.days)


@pytest.fixture
def clock() -> Clock:
    """A clock at the start."""
    return Clock()


@contextmanager
def opened(root: Path, clock: Clock, **how: Any) -> Iterator[App]:
    """A product whose key is replaced every 10 days."""
    settings = product_settings(root, HASH_SALT_ROTATION_DAYS=10)
    with App.open(settings, clock=clock, noise=ZeroNoise(), **how).closing() as app:
        yield app


def keys_of(app: App) -> tuple[int, ...]:
    """The live epochs, newest first."""
    return app.keys.pseudonymizer().epoch_ids


def after(days: int) -> str:
    """A day from the start, as text."""
    return (DAY + dt.timedelta(days=days)).isoformat()


def test_a_service_replaces_and_destroys_keys_by_itself(tmp_path: Path, clock: Clock) -> None:
    """A key lives for its days in use and one overlap; each change is recorded, with no key."""
    seen = {}
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        for clock.days in (9, 10, 19, 20, 10 + 1 + 64 + 1, 10 + 1 + 64 + 2):
            app.take_due()
            seen[clock.days] = keys_of(app)
        log = [(one.actor, one.action, dict(one.facts)) for one in app.ledger.audit_log()]

    assert {9: (1,), 10: (2, 1), 19: (2, 1), 20: (3, 2, 1), 76: (4, 3, 2, 1), 77: (4, 3, 2)} == seen
    assert ("schedule", "key_rotated", {"epoch_id": 2, "day": after(10)}) == log[0]
    assert ("schedule", "key_destroyed", {"epoch_id": 1, "first_day": after(75)}) == log[-1]
    assert 4 == len(log)


def test_the_keys_stay_when_the_clock_goes_back_or_the_service_starts_again(
    tmp_path: Path, clock: Clock
) -> None:
    """The newest key that was used stays the newest."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        clock.days = 10
        assert (2, 1) == keys_of(app)
        clock.days = 3
        assert (2, 1) == keys_of(app)
        pseudonyms = app.keys.pseudonymizer().one("ada")
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        assert pseudonyms == app.keys.pseudonymizer().one("ada")
        assert 0 == app.keys.overdue_days()


def test_the_same_keys_are_the_same_object(tmp_path: Path, clock: Clock) -> None:
    """Nothing is derived again for each request, and a change can be told."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        first = app.keys.pseudonymizer()
        clock.days = 9
        assert first is app.keys.pseudonymizer()
        clock.days = 10
        assert first is not app.keys.pseudonymizer()


def test_a_command_alone_replaces_a_key_that_is_due(tmp_path: Path, clock: Clock) -> None:
    """Without a service, the first command after the day does it, and has the rest to itself."""
    with opened(tmp_path, clock) as app, opened(tmp_path, clock) as other:
        assert (1,) == keys_of(app) == keys_of(other)
    clock.days = 11
    with opened(tmp_path, clock) as app:
        assert (2, 1) == keys_of(app)
        with pytest.raises(DataDirInUseError, match="another command"), opened(tmp_path, clock):
            pass
    with opened(tmp_path, clock) as app, opened(tmp_path, clock) as other:
        assert keys_of(app) == keys_of(other)


def test_commands_beside_each_other_keep_their_keys(tmp_path: Path, clock: Clock) -> None:
    """As long as one goes on under the old key, nobody uses a newer one."""
    with opened(tmp_path, clock) as long:
        clock.days = 10
        with opened(tmp_path, clock) as short:
            assert (1,) == keys_of(long) == keys_of(short)
        send(long, [event("ada", clock().date())])
    with opened(tmp_path, clock) as app:
        assert (2, 1) == keys_of(app)


def test_a_reader_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    """`doctor` and others beside a service only look."""
    with opened(tmp_path, clock, serve_at=SERVICE):
        clock.days = 12
        with opened(tmp_path, clock, read_only=True) as reader:
            assert (1,) == keys_of(reader)
            assert (12, 2) == (reader.keys.age_days(), reader.keys.overdue_days())


def test_a_keyring_that_cannot_be_written_leaves_all_as_it_was(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pseudonym is made under a key that is not durable; the next call tries again."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        clock.days = 10

        def fail(*_: object) -> None:
            raise StoreUnavailableError("full")

        with monkeypatch.context() as patch:
            patch.setattr(Keyring, "save", fail)
            with pytest.raises(StoreUnavailableError):
                app.keys.pseudonymizer()
        assert () == app.ledger.audit_log()
        assert (2, 1) == keys_of(app)


def test_an_older_copy_of_the_keyring_is_refused(tmp_path: Path, clock: Clock) -> None:
    """Under an older key, who is known under a newer one would get a second name."""
    file = tmp_path / "data" / "keyring" / "keyring.json"
    with opened(tmp_path, clock, serve_at=SERVICE):
        older = file.read_bytes()
    clock.days = 10
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        send(app, [event("ada", clock().date())])
    newest = file.read_bytes()
    file.write_bytes(older)
    for how in ({"serve_at": SERVICE}, {}, {"read_only": True}):
        with pytest.raises(StoreCorruptError, match="older copy"), opened(tmp_path, clock, **how):
            pass
        assert older == file.read_bytes()
    file.write_bytes(newest)
    with opened(tmp_path, clock) as app:
        assert (2, 1) == keys_of(app)


def test_what_a_crash_between_keyring_and_store_left_is_made_good(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest key is noted in the store before the first row is written under it."""
    file = tmp_path / "data" / "keyring" / "keyring.json"
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        older = file.read_bytes()
        clock.days = 10
        with monkeypatch.context() as patch:
            patch.setattr(app.keys, "_note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                app.keys.tend()
    with opened(tmp_path, clock) as app:
        assert (2, 1) == keys_of(app)
    file.write_bytes(older)
    with pytest.raises(StoreCorruptError, match="older copy"), opened(tmp_path, clock):
        pass


def test_a_planned_key_is_used_on_its_day(tmp_path: Path, clock: Clock) -> None:
    """What the plan says is what happens; the number of days is that of this key alone."""
    with opened(tmp_path, clock, alone=True) as app:
        change = app.keys.plan(DAY + dt.timedelta(days=5), rotation_days=3)
        before = keys_of(app)
    seen = {}
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        for clock.days in (4, 5, 8, 17, 18, 5 + 1 + 64 + 2):
            app.take_due()
            seen[clock.days] = keys_of(app)

    assert (1,) == before
    assert {
        "epoch_id": 2,
        "effective": after(5),
        "next_rotation": after(8),
        "older_until": after(72),
        "first_day": after(70),
        "live_keys": 2,
    } == change.to_json()
    assert {
        4: (1,),
        5: (2, 1),
        8: (3, 2, 1),
        17: (3, 2, 1),
        18: (4, 3, 2, 1),
    }.items() <= seen.items()
    assert (5, 4, 3, 2) == seen[72]


def test_a_key_can_be_replaced_today_once(tmp_path: Path, clock: Clock) -> None:
    """For a key that leaked; its successor is in use when the call returns."""
    with opened(tmp_path, clock, alone=True) as app:
        app.keys.plan(DAY)
        assert (2, 1) == keys_of(app)
        with pytest.raises(InvalidPlanError, match=f"from {after(1)} to {after(10)}"):
            app.keys.plan(DAY)


@pytest.mark.parametrize(("days", "rotation_days"), [(-1, None), (11, None), (1, 0), (1, 3661)])
def test_a_plan_out_of_range_is_refused(
    tmp_path: Path, clock: Clock, days: int, rotation_days: int | None
) -> None:
    """A day that is over, one after the key is replaced anyway, and a silly number of days."""
    with opened(tmp_path, clock, alone=True) as app:
        with pytest.raises(InvalidPlanError, match="Expected"):
            app.keys.plan(DAY + dt.timedelta(days=days), rotation_days=rotation_days)
        assert (1,) == keys_of(app)


def test_events_before_the_cutoff_are_rejected(tmp_path: Path, clock: Clock) -> None:
    """Once a key is destroyed; and what was read before that is not written after it."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        clock.days = 10
        app.take_due()
        early = decode_objects([event("ada", DAY)], rules=app.rules())
        clock.days = 77
        days = [DAY + dt.timedelta(days=one) for one in (74, 75)]
        report = send(app, [event("ada", day) for day in days])
        with pytest.raises(StoreUnavailableError, match="send them again"):
            app.ingest(early)

    assert (1, ["too_old"]) == (report.accepted, [one.code.value for one in report.rejected])


def test_no_batch_is_built_for_days_that_the_keys_may_not_name(
    tmp_path: Path, clock: Clock
) -> None:
    """The door to the store is the last to ask."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        for clock.days in (10, 77):
            app.take_due()
        decoded = decode_objects([event("ada", DAY)], rules=Rules(clock().date()))
        with pytest.raises(StoreUnavailableError):
            build(decoded, app.keys.pseudonymizer())


def test_a_rotation_during_an_erasure_finds_no_row_under_a_new_name(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written meanwhile, so what comes then is a return, after the erasure."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        send(app, [event("ada", DAY)])
        real, late = app._store.forget, []

        def slow(pseudonyms: Any, **more: Any) -> int:
            clock.days = 10
            app.take_due()
            late.append(app.intake.submit(decode_objects([event("ada")], rules=app.rules())))
            touched = real(pseudonyms, **more)
            assert not late[0].done()
            return touched

        with monkeypatch.context() as patch:
            patch.setattr(app._store, "forget", slow)
            receipt = app.erase("ada")

        assert (1, 1) == (receipt.days_touched, late[0].result().accepted)
        assert 2 == len(app.keys.pseudonymizer().one("ada"))
        assert 1 == app._store.forget(app.keys.pseudonymizer().one("ada"))


@pytest.mark.parametrize(("mau", "grace", "span", "late"), [(30, 24, 64, 2), (60, 25, 91, 3)])
def test_the_overlap_covers_every_window_and_every_plan(
    tmp_path: Path, mau: int, grace: int, span: int, late: int
) -> None:
    """64 days at least, and more than a plan of the longest month reaches back."""
    settings = product_settings(tmp_path, MAU_WINDOW_DAYS=mau, GRACE_HOURS=grace)
    overlap = overlap_of(settings)
    first, last = month_days("2026-01")

    assert (span, late) == (overlap.span_days, overlap.late_days)
    assert (last - first).days + mau - 1 < overlap.span_days


def test_a_month_over_a_gap_is_refused(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where windows became longer after a key was destroyed: nothing is charged."""
    asked = []

    def splits(_self: Keys, first: dt.date, last: dt.date) -> bool:
        asked.append((first, last))
        return True

    monkeypatch.setattr(Keys, "splits", splits)
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        with pytest.raises(InvalidPlanError, match="a key was destroyed"):
            app.open_month("2026-03")
        assert 0.0 == app.budget("plan").epsilon_spent
    assert [(dt.date(2026, 1, 31), dt.date(2026, 3, 31))] == asked


def test_a_batch_is_recognized_over_a_rotation(tmp_path: Path, clock: Clock) -> None:
    """A sender that tries again after midnight changes nothing, and is told so."""
    with opened(tmp_path, clock, serve_at=SERVICE) as app:
        first = send(app, [event("ada", DAY)], batch_id="spool-1")
        clock.days = 10
        again = send(app, [event("ada", DAY)], batch_id="spool-1")
        clock.days = 20
        once_more = send(app, [event("ada", DAY)], batch_id="spool-1")

    assert (1, 1, 1) == (first.accepted, again.duplicate, once_more.duplicate)
