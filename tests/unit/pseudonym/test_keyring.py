"""The lifetimes of keys, and the file that they are in."""

import datetime as dt
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.errors import StoreCorruptError, StoreUnavailableError
from dpdau.pseudonym import Epoch, Keyring, Overlap, key_file, keyring

SECRET = bytes(range(100, 140))
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = NOW.date()
OVERLAP = Overlap(span_days=64, late_days=2)
SALTS = (b"a" * 32, b"b" * 32, b"c" * 32)
VERSION_1 = b"""{
  "version": 1,
  "fingerprint": "QoILSCs3Q+u7i0zQUxv4Jg==",
  "epochs": [
    {
      "epoch_id": 1,
      "created_at": "2026-01-02T03:00:00Z",
      "effective": "1970-01-01",
      "salt": "5ZhyLL1QVb3PCJEz9mL6s7wA6a48wmz6KGx5PXi1l94="
    }
  ],
  "store_salt": "QRjS/fQ/Xj6Tb15iBD8I6b/1ETEH3qlbrJ3iTyujcl0=",
  "checksum": "WALRwdHBFDxiy71QOn8C+Q=="
}
"""


def clock() -> dt.datetime:
    """A fixed time."""
    return NOW


def ids(keys: Keyring) -> list[int]:
    """The live epochs, newest first."""
    return [one.epoch_id for one in keys.live()]


def after(days: int) -> dt.date:
    """A day counted from that of the first rotation."""
    return DAY + dt.timedelta(days=days)


@pytest.fixture
def used() -> Keyring:
    """A keyring with one epoch, made long ago."""
    made = NOW - dt.timedelta(days=100)
    return Keyring(SECRET, [Epoch(1, made, keyring.FIRST_EFFECTIVE_DAY, SALTS[0])])


def rotate(keys: Keyring, day: dt.date, overlap: Overlap = OVERLAP) -> Keyring:
    """A rotation on a day, and what is due on it."""
    return keys.rotated(day, created_at=NOW).activated(day).destroyed(day, overlap)


def test_a_planned_key_is_used_from_the_day_on_which_it_first_could(used: Keyring) -> None:
    """Where nothing ran on its day, its time counts from the first day on which something did."""
    planned = used.rotated(after(0), created_at=NOW)

    assert planned is planned.activated(after(-1))
    assert [1] == ids(planned)
    assert [2, 1] == ids(planned.activated(after(0)))
    assert after(5) == planned.activated(after(5)).newest.effective


def test_a_used_key_stays_the_newest_when_the_clock_goes_back(used: Keyring) -> None:
    """Neither a day before its own nor the file makes an older key the newest again."""
    again = Keyring.decode(rotate(used, after(0)).encode(), SECRET)

    assert [2, 1] == ids(again.activated(after(-30)).destroyed(after(-30), OVERLAP))


def test_a_planned_key_gives_way_to_another_plan(used: Keyring) -> None:
    """Nobody was named under it, so its salt is dropped."""
    first = used.rotated(after(9), created_at=NOW)
    second = first.rotated(after(3), created_at=NOW, rotation_days=7)

    assert [1, 2] == [one.epoch_id for one in second.epochs]
    assert first.epochs[-1].salt != second.epochs[-1].salt
    assert (after(3), after(10)) == (
        second.rotation_day(90),
        second.activated(after(3)).rotation_day(90),
    )


def test_the_age_of_the_first_key_counts_from_its_making(used: Keyring) -> None:
    """It is in force for days before it was made, which make it no older."""
    assert after(-100) == used.newest.since
    assert after(-10) == used.aged_out(90)


def test_the_age_of_a_later_key_counts_from_its_first_use(used: Keyring) -> None:
    """West of Greenwich, a key that is made in the evening is made tomorrow, by UTC."""
    made = NOW + dt.timedelta(days=1)
    later = used.rotated(after(0), created_at=made, rotation_days=1).activated(after(0))

    assert after(1) == later.aged_out(90)


def test_an_old_key_lasts_until_its_overlap_is_over(used: Keyring) -> None:
    """The cut-off is span_days after the last day of its rows; late_days later it is destroyed."""
    both = rotate(used, after(0))
    gone = both.destroyed(after(1 + 64 + 2), OVERLAP)

    assert both is both.destroyed(after(1 + 64 + 1), OVERLAP)
    assert [2] == ids(gone)
    assert dt.date.min == both.first_day
    assert after(1 + 64) == gone.first_day
    assert [None, after(0)] == [gone.epochs[0].salt, gone.epochs[1].effective]


def test_a_destroyed_key_splits_what_reaches_over_its_gap(used: Keyring) -> None:
    """Days up to its last one and days from the cut-off on may not be counted together."""
    both = rotate(used, after(0))
    gone = both.destroyed(after(67), OVERLAP)

    assert not both.splits(after(-100), after(200))
    assert gone.splits(after(1), after(65))
    assert not gone.splits(after(2), after(65))
    assert not gone.splits(after(1), after(64))


def test_a_shorter_overlap_never_brings_the_cutoff_back(used: Keyring) -> None:
    """What was refused once stays refused, when windows become shorter."""
    long = Overlap(span_days=95, late_days=2)
    three = rotate(rotate(used, after(0)), after(1))
    one = three.destroyed(after(98), long)
    two = one.destroyed(after(98), OVERLAP)

    assert ([3, 2], [3]) == (ids(one), ids(two))
    assert one.first_day == two.first_day == after(96)


@given(
    start=st.integers(0, 40),
    distances=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    span_days=st.integers(64, 95),
    late_days=st.integers(1, 33),
)
def test_every_schedule_keeps_its_promises(
    start: int, distances: list[int], span_days: int, late_days: int
) -> None:
    """At each rotation: no old key is newest again, each goes on its day, no gap is too short."""
    overlap = Overlap(span_days=span_days, late_days=late_days)
    keys = Keyring(SECRET, [Epoch(1, NOW, keyring.FIRST_EFFECTIVE_DAY, SALTS[0])])
    days = [after(start + one) for one in itertools.accumulate(distances)]
    newest, cutoff = 0, dt.date.min
    for day in days:
        keys = Keyring.decode(rotate(keys, day, overlap).encode(), SECRET)
        kept = [one for one in days if one <= day < overlap.ends(Epoch(0, NOW, one, b""))]
        assert newest < keys.in_use
        assert cutoff <= keys.first_day
        assert len(kept) + 1 == len(keys.live())
        newest, cutoff = keys.in_use, keys.first_day
    for older, newer in itertools.pairwise(keys.epochs):
        if older.cutoff is not None:
            last = newer.effective + dt.timedelta(days=1)
            assert span_days <= (older.cutoff - last).days
            assert keys.splits(last, older.cutoff)
    assert not any(keys.splits(day, day + dt.timedelta(days=63)) for day in days)


def test_daily_rotation_stays_within_the_limits_for_years(used: Keyring) -> None:
    """Destroyed epochs are dropped in time; then long spans that begin that early are refused."""
    for day in range(1200):
        used = rotate(used, after(day))

    assert 64 + 2 + 2 == len(used.live())
    assert keyring.EPOCHS_MAX > len(used.epochs)
    assert after(1199 - 2) == used.first_day
    assert used.splits(after(0), after(64))
    assert not used.splits(after(0), after(63))
    assert used.splits(after(1000), after(1065))


def test_a_file_of_version_1_is_read_and_written_as_version_2(tmp_path: Path) -> None:
    """An older keyring opens with the same key, and its age counts from its making."""
    root = tmp_path / "keyring"
    root.mkdir()
    (root / key_file.KEYRING_FILE).write_bytes(VERSION_1)
    older = Keyring.open(root, SECRET)
    older.save(root)
    again = Keyring.open(root, SECRET)

    assert older.live() == again.live()
    assert older.store_key() == again.store_key()
    assert dt.date(2026, 1, 2) == again.newest.since
    assert [1, 2] == [
        json.loads(one)["version"]
        for one in (VERSION_1, (root / key_file.KEYRING_FILE).read_bytes())
    ]


def test_what_is_saved_is_found_again(tmp_path: Path, used: Keyring) -> None:
    """Plans, cut-offs and the epoch in use survive the file; it stays its owner's alone."""
    Keyring.create(tmp_path, SECRET, clock=clock)
    gone = rotate(used, after(0)).destroyed(after(67), OVERLAP)
    planned = gone.rotated(after(80), created_at=NOW, rotation_days=7)
    planned.save(tmp_path)
    again = Keyring.open(tmp_path, SECRET)

    assert planned.epochs == again.epochs
    assert (2, after(65)) == (again.in_use, again.first_day)
    assert 0o600 == (tmp_path / key_file.KEYRING_FILE).stat().st_mode & 0o777
    assert [key_file.KEYRING_FILE] == [path.name for path in tmp_path.iterdir()]


def test_the_bytes_of_the_old_file_are_overwritten(tmp_path: Path, used: Keyring) -> None:
    """Whoever still has the old file open, or finds a draft of it, reads no salt."""
    Keyring.create(tmp_path, SECRET, clock=clock)
    rotate(used, after(0)).save(tmp_path)
    draft = tmp_path / f".{key_file.KEYRING_FILE}.1.left"
    draft.write_bytes(b"salts of a crash")
    with (tmp_path / key_file.KEYRING_FILE).open("rb") as old, draft.open("rb") as left:
        rotate(used, after(0)).destroyed(after(67), OVERLAP).save(tmp_path)

        assert {0} == set(old.read())
        assert {0} == set(left.read())
    assert not draft.exists()


def test_a_reader_of_a_file_that_is_replaced_reads_again(
    tmp_path: Path, used: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the old file open while it is overwritten gets the bytes of the new one."""
    Keyring.create(tmp_path, SECRET, clock=clock)
    newer, real, todo = rotate(used, after(0)), os.open, [True]

    def open_late(path: Path, *how: int) -> int:
        handle = real(path, *how)
        if todo and path == tmp_path / key_file.KEYRING_FILE:
            todo.clear()
            newer.save(tmp_path)
        return handle

    monkeypatch.setattr(os, "open", open_late)

    assert newer.encode() == key_file.read(tmp_path)
    assert [] == todo


def test_damage_is_no_replacement(tmp_path: Path) -> None:
    """Bytes that are there to stay are read once, and refused."""
    Keyring.create(tmp_path, SECRET, clock=clock)
    (tmp_path / key_file.KEYRING_FILE).write_bytes(bytes(9))

    with pytest.raises(StoreCorruptError):
        Keyring.open(tmp_path, SECRET)


def test_a_keyring_that_cannot_be_replaced_stays(tmp_path: Path, used: Keyring) -> None:
    """The error is the product's own, and no file is there that was not."""
    with pytest.raises(StoreUnavailableError):
        used.save(tmp_path / "nowhere")
    assert [] == list(tmp_path.iterdir())


KILLING = """
import datetime as dt, os, pathlib, signal, sys
from dpdau.pseudonym import Keyring, Overlap
root, secret = pathlib.Path(sys.argv[1]), bytes(range(100, 140))
now = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
keys = Keyring.create(root, secret, clock=lambda: now)
day = now.date()
keys.rotated(day, created_at=now).activated(day).save(root)
both = Keyring.open(root, secret)
gone = both.destroyed(day + dt.timedelta(days=99), Overlap(span_days=64, late_days=2))
for survived in range(99):
    child = os.fork()
    if child == 0:
        left = survived
        def counted(call):
            def calling(*some, **more):
                global left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*some, **more)
            return calling
        for name in ("open", "fdopen", "fsync", "rename", "pwrite", "close", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        gone.save(root)
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    again = Keyring.open(root, secret)
    sys.stdout.write(f"{code} {[one.epoch_id for one in again.live()]}\\n")
    both.save(root)
    if code == 0:
        break
"""


def test_death_at_any_step_of_a_replacement_leaves_a_keyring(tmp_path: Path) -> None:
    """Killed before each call to the system, the file is the old one or the new one, whole."""
    run = subprocess.run(
        [sys.executable, "-c", KILLING, str(tmp_path / "ring")],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    killed, done = lines[:-1], lines[-1]

    assert "0 [2]" == done
    assert {f"{int(signal.SIGKILL)} [2, 1]", f"{int(signal.SIGKILL)} [2]"} == set(killed)
    assert killed == sorted(killed, key=lambda one: one.endswith("[2]"))
    assert len(killed) > 8
    assert ["keyring.json"] == [path.name for path in (tmp_path / "ring").iterdir()]


def test_the_name_of_a_source_is_keyed_and_outlives_the_epochs(used: Keyring) -> None:
    """The same text has one name under every epoch, and another under another secret."""
    name = used.source_name("/data/\udc80/events.csv")
    other = Keyring(bytes(range(50, 82)), used.epochs, in_use=used.in_use)

    assert 32 == len(name)
    assert name == used.rotated(DAY, created_at=NOW).source_name("/data/\udc80/events.csv")
    assert name != used.source_name("/data/events.csv")
    assert name != other.source_name("/data/\udc80/events.csv")
