"""The watch tells the state of a service, and what must not wait."""

import datetime as dt
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpdau.app import App
from dpdau.app.alerts import KINDS
from dpdau.app.watch import (
    BAD_KEYS_MIN,
    ERASURE_DAYS,
    LOOK_BACK_DAYS,
    VERIFY_SECONDS,
    Watch,
    free_step,
)
from dpdau.domain import Metric, Scope
from dpdau.telemetry import Metrics
from in_process import captured_logs
from products import DAY, NOW, ZeroNoise, event, product_settings, send

ONE_DAY = dt.timedelta(days=1)


class Told:
    """Alerts that are kept instead of sent."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, Mapping[str, Any]]] = []
        self.waiting: set[Any] = set()
        self.hangs = False

    def post(
        self,
        kind: str,
        facts: Mapping[str, Any] | None = None,
        *,
        subject: str = "",
        at: Any = None,
        token: Any = None,
    ) -> None:
        """Keeps one."""
        assert kind in KINDS
        self.facts.append((kind, facts or {}))
        if self.hangs:
            self.waiting.add(token)

    def undelivered(self) -> frozenset[Any]:
        """What was kept while the outlet hung."""
        return frozenset(self.waiting)

    def tend(self) -> None:
        """Does nothing."""

    close = tend


class Watched:
    """A product with a watch whose clocks are moved by hand, and what it told."""

    def __init__(self, root: Path, *, now: dt.datetime, owns: bool, opening: bool, **changes: Any):
        self.now, self.seconds = now, 0.0
        self.metrics, self.alerts = Metrics(), Told()
        self.app = App.open(
            product_settings(root, **changes),
            clock=lambda: self.now,
            noise=ZeroNoise(),
            metrics=self.metrics,
            reported=False,
        )
        self.watch = Watch(
            self.app,
            metrics=self.metrics,
            alerts=self.alerts,
            owns=owns,
            opening=opening,
            seconds=lambda: self.seconds,
        )

    def turn(self) -> list[str]:
        """The kinds of what one turn tells."""
        self.alerts.facts.clear()
        self.watch.turn()
        return [kind for kind, _facts in self.alerts.facts]

    def value(self, name: str, **labels: str) -> float | None:
        """A sample of /metrics."""
        return self.metrics.registry.get_sample_value(f"dpdau_{name}", labels)


@contextmanager
def watched(
    root: Path,
    *,
    now: dt.datetime = NOW,
    owns: bool = True,
    opening: bool = False,
    **changes: Any,
) -> Iterator[Watched]:
    """A product that is watched."""
    one = Watched(root, now=now, owns=owns, opening=opening, **changes)
    try:
        yield one
    finally:
        one.watch.close()
        one.app.close()


def test_a_sound_service_tells_nothing(tmp_path: Path) -> None:
    """A new service is sound, has room, has no backup, and is behind with nothing."""
    with watched(tmp_path) as one:
        told = one.turn()

        assert [] == told
        assert (1, NOW.timestamp()) == (
            one.value("ledger_sound"),
            one.value("ledger_verified_timestamp_seconds"),
        )
        assert NOW.timestamp() == one.value("watch_timestamp_seconds")
        assert (0, 0, 0) == (
            one.value("release_overdue_seconds"),
            one.value("backup_timestamp_seconds"),
            one.value("erasures_outstanding"),
        )
        assert one.value("disk_free_ratio") in {0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5}


@pytest.mark.parametrize(
    ("ratio", "told"), [(1.0, 0.5), (0.5, 0.5), (0.499, 0.3), (0.1, 0.1), (0.009, 0.0)]
)
def test_the_room_is_told_in_steps(ratio: float, told: float) -> None:
    """No single event moves what is told of the disk."""
    assert told == free_step(ratio)


def test_what_others_did_is_told_once(tmp_path: Path) -> None:
    """Keys, grants and exact reads are told, also of while no service ran; the past is not."""
    with watched(tmp_path) as one:
        one.app.ledger.keys.create("before", [Scope.READ], None)
        first = one.turn()
        key_id, _ = one.app.ledger.keys.create("web", [Scope.INGEST], None)
        one.app.ledger.keys.revoke(key_id)
        second, created = one.turn(), one.alerts.facts[0][1]
        third = one.turn()
        one.app.grant("dau", DAY, reason="board")
        one.app.exact({Metric.DAU: 1}, DAY, DAY, reason="debt")
        one.app.ledger.audit_event("operator", "activity_restored", {"reason": "drill"})
        one.app.ledger.audit_event("operator", "erase", {"erasure_id": "e"})
    with watched(tmp_path) as again:
        after = again.turn()

        assert [] == again.turn()
    assert ([], []) == (first, third)
    assert ["key_created", "key_revoked"] == second
    assert ("web", ["ingest"]) == (created["label"], created["scopes"])
    assert ["budget_granted", "exact_read", "restored"] == after


def test_each_step_of_a_budget_is_told_once(tmp_path: Path) -> None:
    """At 50, 80 and 95 % of a cap, each once, also after another start; a grant begins anew."""
    told: list[list[str]] = []
    with watched(tmp_path, EPSILON_DAU="0.3", DAU_BUDGET_TOTAL="3.0") as one:
        send(one.app, [event("ada")])
        for bought in range(10):
            one.app.release(Metric.DAU, DAY - bought * ONE_DAY)
            told.append(one.turn())
        share = one.value("budget_spent_ratio", metric="dau", period="2026-03")
    with watched(tmp_path) as one:
        again = one.turn()
        one.app.grant("dau", DAY, reason="board")
        granted = one.turn()
        for _ in range(6):
            one.app.release(Metric.DAU, DAY, fresh=True)
        once_more = one.turn()

    assert [5, 8, 10] == [number + 1 for number, kinds in enumerate(told) if kinds]
    assert ["budget_50", "budget_80", "budget_95"] == [kind for kinds in told for kind in kinds]
    assert 1.0 == share
    assert [] == again
    # Ten of twenty are half of it, which was told before; sixteen are 80 %.
    assert (["budget_granted"], ["budget_80"]) == (granted, once_more)


def test_a_plan_may_spend_its_month(tmp_path: Path) -> None:
    """The budget of a plan is spent at once; that is shown, and is no alert."""
    with watched(tmp_path, RELEASE_POLICY="plan", opening=True) as one:
        before = one.value("release_overdue_seconds"), one.turn()
        late = one.value("release_overdue_seconds")
        one.app.take_due()

        assert [] == one.turn()
        assert 1.0 == one.value("budget_spent_ratio", metric="plan", period="2026-03")
        assert 0 == one.value("release_overdue_seconds")
        one.now += ONE_DAY + dt.timedelta(hours=3)
        one.turn()
        # The day that closed at midnight is due since then.
        assert 15 * 3600 == one.value("release_overdue_seconds")
    assert (0, []) == before
    # Nothing of March was released: its first day closed on the third.
    assert (NOW - dt.datetime(2026, 3, 3, tzinfo=dt.UTC)).total_seconds() == late


def test_budgets_of_months_that_are_over_are_not_shown(tmp_path: Path) -> None:
    """Nobody can act on them, and the labels of /metrics stay few."""
    with watched(tmp_path) as one:
        one.app.release(Metric.DAU, DAY)
        one.turn()
        before = one.value("budget_spent_ratio", metric="dau", period="2026-03")
        one.now += 60 * ONE_DAY
        one.turn()

        assert before is not None
        assert one.value("budget_spent_ratio", metric="dau", period="2026-03") is None


def test_keys_that_are_tried_are_told(tmp_path: Path) -> None:
    """Many requests without a valid key in one turn are an alert, few are none."""
    with watched(tmp_path, owns=False) as one:
        few, many, spent = [], [], []
        refusals = one.metrics.refusals.labels
        refusals("not_authenticated").inc(BAD_KEYS_MIN - 1)
        few = one.turn()
        refusals("not_authenticated").inc(BAD_KEYS_MIN)
        many = one.turn()
        refusals("budget_exhausted").inc()
        spent = one.turn()

        assert ([], ["bad_keys"], ["budget_exhausted"]) == (few, many, spent)
        # One that passes events on leaves the state to the one that holds the activity.
        assert one.value("ledger_sound") is None


def test_one_that_passes_events_on_shows_budgets_and_tells_of_none(tmp_path: Path) -> None:
    """What it shows is looked up each turn, and is gone with the month."""
    with watched(tmp_path, owns=False, EPSILON_DAU="3.0", DAU_BUDGET_TOTAL="3.0") as one:
        one.app.release(Metric.DAU, DAY)
        told = one.turn()
        shown = one.value("budget_spent_ratio", metric="dau", period="2026-03")
        one.now += 60 * ONE_DAY
        one.turn()
        one.app.release(Metric.DAU, DAY)

        assert ([], 1.0) == (told, shown)
        assert one.value("budget_spent_ratio", metric="dau", period="2026-03") is None
        assert not (tmp_path / "data" / "alerts.json").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _text: "",
        lambda _text: "[]",
        lambda text: text.replace('"seq": ', '"seq": 9'),
        lambda text: text.replace('"ledger_id": "', '"ledger_id": "0'),
    ],
)
def test_a_torn_file_skips_nothing(tmp_path: Path, damage: Any) -> None:
    """Where it is not known how far the log was read, the last days are told again, and said."""
    path = tmp_path / "data" / "alerts.json"
    with watched(tmp_path) as one:
        one.app.ledger.keys.create("long ago", [Scope.INGEST], None)
        one.turn()
        one.now += (LOOK_BACK_DAYS + 1) * ONE_DAY
        one.app.exact({Metric.DAU: 1}, DAY, DAY, reason="debt")
    path.write_text(damage(path.read_text()))
    now = NOW + (LOOK_BACK_DAYS + 1) * ONE_DAY
    with captured_logs() as logs, watched(tmp_path, now=now) as one:
        told = one.turn()
        again = one.turn()

    assert (["exact_read"], []) == (told, again)
    assert 1 == logs.getvalue().count("alerts.json is of no use")


def test_what_was_not_delivered_is_told_again(tmp_path: Path) -> None:
    """The place in the log is kept behind it, for audit events and for budgets."""
    with watched(tmp_path, EPSILON_DAU="1.5", DAU_BUDGET_TOTAL="3.0") as one:
        one.turn()
        one.alerts.hangs = True
        one.app.ledger.keys.create("web", [Scope.ADMIN], None)
        one.app.release(Metric.DAU, DAY)
        first = one.turn()
    with watched(tmp_path, EPSILON_DAU="1.5", DAU_BUDGET_TOTAL="3.0") as one:
        second = one.turn()
    with watched(tmp_path, EPSILON_DAU="1.5", DAU_BUDGET_TOTAL="3.0") as one:
        third = one.turn()

    assert {"strong_key_created", "budget_50"} == set(first) == set(second)
    assert [] == third


def test_a_ledger_that_was_changed_is_told(tmp_path: Path) -> None:
    """It is found when the ledger is verified again, and not a turn earlier than it is time."""
    with watched(tmp_path) as one:
        send(one.app, [event("ada")])
        one.app.release(Metric.DAU, DAY)
        before = one.turn()
        path = tmp_path / "data" / "ledgers" / "ledger.sqlite"
        with closing(sqlite3.connect(path)) as raw, raw:
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                raw.execute(f"DROP TRIGGER {name}")
            raw.execute("UPDATE releases SET body = body || ' '")
        unchanged = one.turn()
        one.seconds += VERIFY_SECONDS
        found = one.turn()

        assert ([], []) == (before, unchanged)
        assert ["ledger_broken"] == found
        assert 0 == one.value("ledger_sound")


def test_a_ledger_that_was_replaced_is_told_at_once(tmp_path: Path) -> None:
    """Every look at the ledger sees that it is another one."""
    with watched(tmp_path) as one:
        one.turn()
        one.app.release(Metric.DAU, DAY)
        path = tmp_path / "data" / "ledgers" / "ledger.sqlite"
        with closing(sqlite3.connect(path)) as raw, raw:
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                raw.execute(f"DROP TRIGGER {name}")
            raw.execute("DELETE FROM entries WHERE seq > 1")
        looked_at = one.value("watch_timestamp_seconds")
        one.now += dt.timedelta(minutes=1)
        found = one.turn()

        assert {"ledger_broken"} == set(found)
        assert 0 == one.value("ledger_sound")
        assert looked_at == one.value("watch_timestamp_seconds")


def test_an_erasure_without_a_receipt_is_shown(tmp_path: Path) -> None:
    """One that was cut short is outstanding, for a month; one that was done is not."""
    with watched(tmp_path) as one:
        send(one.app, [event("ada")])
        one.app.erase("ada")
        one.app.ledger.audit_event("operator", "erase", {"erasure_id": "cut-short"})
        one.turn()
        outstanding = one.value("erasures_outstanding")
        one.now += (ERASURE_DAYS + 1) * ONE_DAY
        one.turn()

        assert (1, 0) == (outstanding, one.value("erasures_outstanding"))


def test_the_newest_backup_is_shown(tmp_path: Path) -> None:
    """The age of the newest one in DATA_DIR counts, and none that is being made."""
    with watched(tmp_path) as one:
        folder = tmp_path / "data" / "backups"
        folder.mkdir()
        for name, at in (("old.sqlite", 1000), ("new.sqlite", 2000), ("all-3.partial", 3000)):
            (folder / name).touch()
            os.utime(folder / name, (at, at))
        one.turn()

        assert 2000 == one.value("backup_timestamp_seconds")


def test_one_look_that_fails_hides_no_other(tmp_path: Path) -> None:
    """Where the audit log's place cannot be kept, the rest is told; the turn is not done."""
    with watched(tmp_path) as one:
        one.turn()
        (tmp_path / "data" / "alerts.json").unlink()
        (tmp_path / "data" / "alerts.json").mkdir()
        one.app.ledger.keys.create("web", [Scope.INGEST], None)
        one.now += ONE_DAY
        send(one.app, [event("ada")])
        one.app.release(Metric.DAU, DAY)
        one.turn()

        assert NOW.timestamp() == one.value("watch_timestamp_seconds")
        assert 0.1 == one.value("budget_spent_ratio", metric="dau", period="2026-03")


def test_it_turns_by_itself_until_it_is_closed(tmp_path: Path) -> None:
    """The first turn is made at once, and closing ends the thread."""
    with watched(tmp_path) as one:
        one.watch.start()
        one.watch.close()

        assert NOW.timestamp() == one.value("watch_timestamp_seconds")
