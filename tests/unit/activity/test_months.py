"""Open months on disk: what is kept, what is destroyed, and what a failure leaves."""

import datetime as dt
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.held import HELD, plan_month
from dpdau.activity.labels import LABELS
from dpdau.activity.masks import MASKS
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.errors import InvalidPlanError, StoreUnavailableError
from strategies import batch, columns

MONTH, FIRST = "2026-02", dt.date(2026, 2, 1)
DAY = day_number(FIRST)
WHO, ALIAS = 0x0123456789ABCDEF, 0x1123456789ABCDEF
KEY = bytes(range(32))
SECRET = b"a month of noise, as secret as the counts"
WEB = Segment("platform", "web")

Open = Callable[..., EmbeddedStore]


def put(who: int, offset: int = 0, op: Op = Op.ADD) -> tuple[Event, dict[str, str]]:
    """An event with a label."""
    return Event(who, op, DAY + offset), {"platform": "web"}


def occurrences(root: Path, wanted: bytes) -> int:
    """How often some bytes are in the files of a folder."""
    return sum(path.read_bytes().count(wanted) for path in root.rglob("*") if path.is_file())


def bytes_of(who: int) -> bytes:
    """A pseudonym as it is written."""
    return who.to_bytes(8, "little")


def started(store: EmbeddedStore, days: int = 1) -> EmbeddedStore:
    """A store with an open month and a secret; its first days are fixed and one event was late."""
    store.apply(batch([put(WHO, -1), put(ALIAS, 0), put(1, 0)]))
    store.open_month(MONTH, lookback_days=30, dimensions=["platform"])
    store.put_secret(MONTH, SECRET)
    for offset in range(days):
        store.freeze(MONTH, FIRST + dt.timedelta(days=offset))
    store.apply(batch([put(WHO, -1, Op.REMOVE), put(WHO, 0)]))
    return store


def filled(store: EmbeddedStore, batches: int) -> None:
    """More rows, some of them late, so that the earlier ones move to other levels."""
    for one in range(batches):
        store.apply(batch([put(one << 59 | 2 + user, user % 3 - 1) for user in range(5)]))


@pytest.mark.parametrize("later", [0, 1, 3, 12])
def test_forgetting_leaves_only_the_tombstone(open_store: Open, tmp_path: Path, later: int) -> None:
    """After an erasure a pseudonym is in the tombstones of the open month, once a page."""
    store = started(open_store())
    filled(store, later)
    store.forget([WHO, ALIAS])
    month = plan_month(MONTH, lookback_days=30, dimensions=["platform"])
    keys = np.array(sorted([WHO, ALIAS]), dtype=np.uint64)
    state = store._access._history.snapshot((MASKS, LABELS, HELD))
    held = state.lookup(HELD, keys)

    assert ({}, {}) == (state.lookup(MASKS, keys), state.lookup(LABELS, keys))
    assert [month.group(page) for page in month.pages] == sorted(held)
    for rows in held.values():
        assert keys.tolist() == rows.key.tolist()
        assert [[0, 0], [2**64 - 1] * 2] == [column.tolist() for column in rows.values]
    for who in (WHO, ALIAS):
        assert len(month.pages) == occurrences(tmp_path, bytes_of(who))
        assert 0 == occurrences(tmp_path, who.to_bytes(8, "big"))


@pytest.mark.parametrize("later", [0, 1, 3, 12])
def test_the_end_of_a_month_leaves_no_byte(open_store: Open, tmp_path: Path, later: int) -> None:
    """Tombstones, held rows, plan labels and the secret are in no file; the truth stays."""
    store = started(open_store())
    store.apply(batch([put(WHO, 1)], alias=lambda _who: [ALIAS]))
    filled(store, later)
    store.forget([WHO, ALIAS])
    assert occurrences(tmp_path, SECRET)
    before = store.counts(first=FIRST, last=FIRST, window_days=[1, 7, 30], segment=WEB)
    store.end_month(MONTH)
    state = store._access._history.snapshot((LABELS, HELD))

    assert [0, 0, 0] == [
        occurrences(tmp_path, one) for one in (SECRET, *map(bytes_of, (WHO, ALIAS)))
    ]
    assert {} == state.deltas[HELD.kind]
    assert not [name for name in state.segments if name[0] == HELD.kind]
    assert all(group < 1 << 24 for group in state.deltas[LABELS.kind])
    after = store.counts(first=FIRST, last=FIRST, window_days=[1, 7, 30], segment=WEB)
    assert before.tolist() == after.tolist()
    assert store.secret(MONTH) is None


def test_no_secret_is_in_the_clear_under_a_key(open_store: Open, tmp_path: Path) -> None:
    """The secret of a month is sealed under the store key, and opens again after a restart."""
    started(open_store(store_key=KEY)).close()

    assert 0 == occurrences(tmp_path, SECRET)
    assert SECRET == open_store(store_key=KEY, read_only=True).secret(MONTH)


def test_a_damaged_end_can_be_repeated(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log could not be emptied, ending again empties it."""
    store = started(open_store())

    def busy(_manifest: object) -> None:
        raise StoreUnavailableError("Expected no reader.")

    with monkeypatch.context() as patched:
        patched.setattr("dpdau.activity.manifest.Manifest.truncate_log", busy)
        with pytest.raises(StoreUnavailableError):
            store.end_month(MONTH)
    store.end_month(MONTH)

    assert 0 == occurrences(tmp_path, SECRET)


@pytest.mark.parametrize("broken", ["add_pending", "put_month", "close_day"])
def test_a_failed_freeze_fixes_nothing(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The day, its labels and its closing are one transaction; a retry works."""
    store = started(open_store(), days=0)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(f"dpdau.activity.manifest.Manifest.{broken}", full)
        # Room for the labels of the day in the manifest.
        patched.setattr("dpdau.activity.upkeep.Upkeep.tend", lambda *_: None)
        store._access._writer[1]._limits = type(store._access._limits)()  # type: ignore[index]
        with pytest.raises(StoreUnavailableError):
            store.freeze(MONTH, FIRST)
    assert store.frozen_through(MONTH) is None
    assert frozenset() == store.closed_days(FIRST, FIRST)
    store.freeze(MONTH, FIRST)

    assert FIRST == store.frozen_through(MONTH)
    table = store.contributions(MONTH, FIRST, window_days=[1], segments=[WEB])
    assert [[3], [3]] == table.tolist()


@pytest.mark.parametrize(("batch_id", "fails"), [(None, "append"), ("b", "set_offsets")])
def test_a_failed_late_batch_changes_nothing(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, batch_id: str | None, fails: str
) -> None:
    """What is held and what changes are one transaction."""
    store = started(open_store(), days=2)
    before = store.contributions(MONTH, FIRST, window_days=[1, 30]).tolist()
    truth = store.counts(first=FIRST, last=FIRST, window_days=[1]).tolist()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(f"dpdau.activity.manifest.Manifest.{fails}", full)
        with pytest.raises(StoreUnavailableError):
            store.apply(batch([put(1, 0, Op.REMOVE)], batch_id=batch_id))
    assert truth == store.counts(first=FIRST, last=FIRST, window_days=[1]).tolist()
    store.apply(batch([put(1, 0, Op.REMOVE)], batch_id=batch_id))

    assert before == store.contributions(MONTH, FIRST, window_days=[1, 30]).tolist()


def test_an_event_again_takes_no_room(open_store: Open) -> None:
    """A late event that changes nothing holds nothing, and neither does one on time."""
    store = open_store()
    store.apply(batch([put(1, 0), put(2, 0)]))
    store.open_month(MONTH, lookback_days=30)
    store.freeze(MONTH, FIRST)
    store.apply(batch([put(1, 0), put(2, 1), put(3, 0, Op.REMOVE), put(4, -40)]))
    held = store._access._history.snapshot((HELD,))

    assert {} == held.deltas[HELD.kind]
    assert not [name for name in held.segments if name[0] == HELD.kind]


def test_a_read_only_store_counts_and_changes_nothing(open_store: Open) -> None:
    """Reading needs no writer; every verb that writes is refused."""
    started(open_store()).close()
    reader = open_store(read_only=True)

    assert FIRST == reader.frozen_through(MONTH)
    assert [[2]] == reader.contributions(MONTH, FIRST, window_days=[1]).tolist()
    for call in (
        lambda: reader.open_month(MONTH, lookback_days=30),
        lambda: reader.freeze(MONTH, FIRST),
        lambda: reader.put_secret(MONTH, SECRET),
        lambda: reader.end_month(MONTH),
    ):
        with pytest.raises(StoreUnavailableError):
            call()


def test_many_late_users_go_to_a_file(open_store: Open) -> None:
    """A large late batch holds all of its users, whatever the level they lie on."""
    store = open_store()
    who = np.arange(1, 400, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    store.apply(columns(who, np.full(len(who), DAY)))
    store.open_month(MONTH, lookback_days=30)
    store.freeze(MONTH, FIRST)
    store.apply(columns(who, np.full(len(who), DAY), add=np.zeros(len(who), dtype=np.bool_)))
    filled(store, 4)

    assert [[399, 399]] == store.contributions(MONTH, FIRST, window_days=[1, 30]).tolist()
    with pytest.raises(InvalidPlanError):
        store.contributions(MONTH, FIRST, window_days=[64])
