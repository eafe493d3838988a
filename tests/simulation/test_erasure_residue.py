"""Erasure against every byte: what it leaves on the disk is nothing but tombstones that are due."""

import datetime as dt
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dpdau.activity import upkeep as upkeep_module
from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.frozen import FrozenTurnstile
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import LABELS
from dpdau.activity.live_turnstile import LiveTurnstile
from dpdau.activity.manifest import Manifest
from dpdau.activity.residue import inspect, occurrences
from dpdau.activity.segments import SegmentFiles
from dpdau.activity.upkeep import Upkeep
from dpdau.domain import Event, Op, Segment, day_date, day_number
from stores import KEY, NOW, TINY, folder_in_memory
from strategies import DIMENSION_VALUES, LabeledEvent, batch

USERS = 40
EPOCHS = 3
FIRST = dt.date(2026, 3, 1)
MONTH, BEFORE = "2026-03", "2026-02"
WINDOWS = (1, 7, 30)
LOOKBACK_DAYS = 30
SEGMENTS = [Segment(name, value) for name, some in DIMENSION_VALUES.items() for value in some]
SPREAD = StoreLimits(
    direct_rows_min=64, part_rows_min=96, pending_rows_max=400, pending_commits_max=12
)
"""Many small commits in the manifest, and files of several rows."""
STEPS = 30


class World:
    """A store under rotating keys beside the oracles, which know users by their number."""

    def __init__(self, root: Path, seed: int, *, limits: StoreLimits, key: bytes | None) -> None:
        self.root, self.key, self._limits = root, key, limits
        self.random = random.Random(seed)
        self.store = self.open()
        self.frozen, self.live = FrozenTurnstile(), LiveTurnstile()
        self._names = [[self.random.getrandbits(64) for _ in range(EPOCHS)] for _ in range(USERS)]
        self._epoch, self._day, self.erased = 0, 0, set[int]()
        self._event_id = 0
        for one in (self.store, self.frozen):
            one.open_month(MONTH, lookback_days=LOOKBACK_DAYS, dimensions=tuple(DIMENSION_VALUES))
        self.store.live.open(MONTH)

    def open(self) -> EmbeddedStore:
        """The store of this world."""
        return EmbeddedStore(self.root, store_key=self.key, clock=lambda: NOW, limits=self._limits)

    def names(self, user: int) -> list[int]:
        """A user under every live key, newest first."""
        return self._names[user][: self._epoch + 1][::-1]

    def send(self, size: int) -> None:
        """Sends random events: most of them late or of today, a fourth of them removals."""
        stream: list[LabeledEvent] = []
        for _ in range(size):
            user = self.random.randrange(USERS)
            op = self.random.choice([Op.ADD, Op.ADD, Op.ADD, Op.REMOVE])
            day = day_number(FIRST) + self._day + self.random.choice([-33, -9, -2, -1, 0, 0, 0])
            labels = {
                name: self.random.choice(some)
                for name, some in DIMENSION_VALUES.items()
                if self.random.random() < 0.6
            }
            self._event_id += 1
            for oracle in (self.frozen, self.live):
                oracle.update(Event(user, op, day), labels)
            event = Event(self.names(user)[0], op, day, self._event_id * 0x9E3779B97F4A7C15 % 2**64)
            stream.append((event, labels))
        self.live.settle()
        known = {self.names(user)[0]: self.names(user)[1:] for user in range(USERS)}
        self.store.apply(batch(stream, alias=known.__getitem__))

    def pass_day(self) -> None:
        """Fixes the day for the month's plan, and makes the next one the live one."""
        day = FIRST + dt.timedelta(days=self._day)
        for one in (self.store, self.frozen):
            one.freeze(MONTH, day)
        self._day += 1
        self.store.live.begin(day + dt.timedelta(days=1))
        self.live.begin(day + dt.timedelta(days=1))

    def rotate(self) -> None:
        """Takes a new key; users move as they come back."""
        self._epoch = min(self._epoch + 1, EPOCHS - 1)

    def erase(self, user: int) -> None:
        """Erases a user under every live key."""
        self.store.forget(self.names(user), erasure_id=f"{len(self.erased)}-{user}", done_at=NOW)
        self.erased.add(user)
        for oracle in (self.frozen, self.live):
            oracle.erase([user])

    def run(self, steps: int) -> None:
        """Some of everything, from the seed."""
        for step in range(steps):
            self.send(self.random.choice([1, 2, 4, 90]))
            if step % 7 == 3:
                self.pass_day()
            if step in {10, 20}:
                self.rotate()

    def check(self, users: list[int]) -> None:
        """No byte of these users but tombstones that are due; and everybody else counts."""
        names = [name for user in users for name in self.names(user)]
        findings = inspect(self.root, store_key=self.key, names=names)
        assert [] == findings.problems
        assert [] == findings.rows_found
        assert {MONTH, day_date(self.live_day).isoformat()} == {
            one.tombstone.kept_for for one in findings.kept if one.pseudonyms
        }
        for index, name in enumerate(names):
            for path, found in holding(self.root, name).items():
                place = path.name
                kept = findings.tombstones_found[place, index] if self.key is None else 0
                assert kept == found, f"{place} holds more than tombstones"
            assert findings.tombstones_found.total() >= len(names)
        self.compare()

    @property
    def live_day(self) -> int:
        """The day that is live."""
        return day_number(FIRST) + self._day

    def compare(self) -> None:
        """Open windows, the plan of the month and the live day count as the oracles do."""
        range_ = {"first": FIRST - dt.timedelta(days=40), "last": FIRST + dt.timedelta(days=20)}
        for segment in (None, SEGMENTS[0]):
            expected = self.frozen.counts(**range_, window_days=WINDOWS, segment=segment)
            actual = self.store.counts(**range_, window_days=WINDOWS, segment=segment)
            assert expected.tolist() == actual.tolist()
        for number in range(self._day):
            asked = {"window_days": WINDOWS, "segments": SEGMENTS}
            day = FIRST + dt.timedelta(days=number)
            expected = self.frozen.contributions(MONTH, day, **asked)
            assert expected.tolist() == self.store.contributions(MONTH, day, **asked).tolist()
        assert self.live.count() == self.store.live.count(day_date(self.live_day))


def holding(root: Path, name: int) -> dict[Path, int]:
    """File → how often it holds a pseudonym in any form; for this test alone, byte by byte."""
    little, big = name.to_bytes(8, "little"), name.to_bytes(8, "big")
    forms = [little, big, little.hex().encode(), big.hex().encode(), str(name).encode()]
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            times = sum(content.count(form) for form in {*forms, *map(bytes.upper, forms[2:4])})
            assert times == occurrences(path, frozenset({*forms, *map(bytes.upper, forms[2:4])}))
            if times:
                found[path] = times
    return found


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory: this is about bytes, not about the disk."""
    with folder_in_memory(tmp_path) as root:
        yield root


def life(root: Path, seed: int, limits: StoreLimits, key: bytes | None) -> None:
    """A workload with erasures, two in a row, of a user who comes back, and of nobody."""
    world = World(root / "activity", seed, limits=limits, key=key)
    with closing(world.store):
        world.run(STEPS)
        first, second, third = world.random.sample(range(USERS), 3)
        for user in (first, second):
            assert key is not None or holding(world.root, world.names(user)[0])
            world.erase(user)
        world.check([first, second])
        world.run(6)
        returned = [world.random.randrange(USERS), third]
        for user in (first, *returned):
            world.erase(user)
        world.check([first, *returned])
        assert 0 == world.store.forget(world.names(first))
        world.check([first, *returned])
        # With the plans over, not even the tombstones are left.
        world.store.end_month(MONTH)
        world.store.live.end(dt.date(2026, 5, 1))
        world.store.flush()
        for user in (first, *returned):
            assert {} == {
                path: found
                for name in world.names(user)
                for path, found in holding(world.root, name).items()
            }
        assert [] == inspect(world.root, store_key=key).problems


@pytest.mark.parametrize(
    ("seed", "limits", "key"),
    [(1, TINY, None), (2, TINY, KEY), (3, SPREAD, None), (4, SPREAD, KEY)],
    ids=["files", "files encrypted", "manifest", "manifest encrypted"],
)
def test_an_erasure_leaves_no_byte(
    memory: Path, seed: int, limits: StoreLimits, key: bytes | None
) -> None:
    """Whatever was stored, late, held, labeled, renamed or live: only due tombstones are left."""
    life(memory, seed, limits, key)


def _log_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Manifest, "truncate_log", lambda _self: None)


def _files_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SegmentFiles, "remove", lambda _self, _names: None)


def _orphan_kept(patch: pytest.MonkeyPatch) -> None:
    """The files of a merge are deleted only when the store is opened again."""
    patch.setattr(upkeep_module.leftovers, "remove_orphans", lambda _manifest, _files: None)
    keep = SegmentFiles.remove
    patch.setattr(SegmentFiles, "remove", lambda self, names: keep(self, sorted(names)[1:]))


def _table_skipped(patch: pytest.MonkeyPatch) -> None:
    holds = Snapshot.holds
    patch.setattr(
        Snapshot,
        "holds",
        lambda self, table, ref, keys: table is not LABELS and holds(self, table, ref, keys),
    )


def _pending_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "_refold", lambda *_args: None)


def _page_kept(patch: pytest.MonkeyPatch) -> None:
    """Freed pages keep what they held."""
    opened = Manifest.__init__

    def careless(self: Manifest, *args: object, **options: object) -> None:
        opened(self, *args, **options)
        self._db.execute("PRAGMA secure_delete = OFF")

    patch.setattr(Manifest, "__init__", careless)


def _alias_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Only the newest name is looked for."""
    forget = EmbeddedStore.forget
    patch.setattr(
        EmbeddedStore, "forget", lambda self, keys, **options: forget(self, keys[:1], **options)
    )


def _tombstones_kept(patch: pytest.MonkeyPatch) -> None:
    """The end of a month destroys nothing."""
    patch.setattr(Upkeep, "_take_out", lambda *_args: None)


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], StoreLimits]] = {
    "log kept": (_log_kept, SPREAD),
    "files kept": (_files_kept, TINY),
    "orphan kept": (_orphan_kept, TINY),
    "table skipped": (_table_skipped, TINY),
    "pending kept": (_pending_kept, SPREAD),
    "page kept": (_page_kept, SPREAD),
    "alias forgotten": (_alias_forgotten, TINY),
    "tombstones kept": (_tombstones_kept, TINY),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(memory: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to forget badly turns the check red."""
    plant, limits = BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        life(memory, 1, limits, None)


def test_orphans_and_the_log_of_a_crash_go_with_the_next_writer(memory: Path) -> None:
    """Replaced files and pages that a crash left are gone as soon as someone may write again."""
    world = World(memory / "activity", 3, limits=TINY, key=None)
    world.run(STEPS)
    user = 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFiles, "remove", lambda _self, _names: None)
        patch.setattr(Manifest, "truncate_log", lambda _self: _die())
        with pytest.raises(KeyboardInterrupt):
            world.erase(user)
    with closing(world.store):
        left = [path for name in world.names(user) for path in holding(world.root, name)]
        assert any(path.suffix == ".seg" for path in left)
    with closing(world.open()) as again:
        assert again.receipt(f"0-{user}").files_cleared
        world.store = again
        for oracle in (world.frozen, world.live):
            oracle.erase([user])
        world.check([user])


def _die() -> None:
    """Ends an erasure after its transaction, as a crash would."""
    raise KeyboardInterrupt


def test_a_receipt_says_what_is_kept_and_until_when(memory: Path) -> None:
    """The open plans with their last days, the number of keys, and that no file holds the user."""
    world = World(memory / "activity", 4, limits=TINY, key=KEY)
    with closing(world.store):
        world.run(30)
        world.erase(7)
        receipt = world.store.receipt("0-7")
        kept = {one.kept_for: one.through for one in receipt.tombstones or ()}
        today = day_date(world.live_day)

        assert {MONTH: dt.date(2026, 3, 31), today.isoformat(): today} == kept
        assert (EPOCHS, True) == (receipt.keys_searched, receipt.files_cleared)
        assert receipt == type(receipt).from_json(receipt.to_json())
