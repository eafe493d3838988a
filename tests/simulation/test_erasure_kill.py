"""Erasures, backups and restores under `kill -9`: done or not begun, and nothing in between."""

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.residue import inspect
from dpdau.app import App, back_up, restore_all
from dpdau.datadir import DataDir
from dpdau.domain import Event, Metric, Op, day_number
from dpdau.errors import InvalidSettingError, NotFoundError, StoreCorruptError
from products import DAY, NOW, ZeroNoise, event, product, product_settings, send
from stores import TINY
from strategies import batch

WHO = 0x9E3779B97F4A7C15
"""The user who is erased, spread over two names."""
ALIAS = 0xC2B2AE3D27D4EB4F
USERS = 30

KILLER = """
import os, signal, sys, shutil, pathlib
at, seen = int(sys.argv[1]), 0

def counted(work):
    def call(*args, **options):
        global seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **options)
    return call

def arm():
    # Each of these is where the disk has just changed, or is about to.
    from dpdau.activity.manifest import Manifest
    os.fsync = counted(os.fsync)
    shutil.copyfile = counted(shutil.copyfile)
    Manifest.truncate_log = counted(Manifest.truncate_log)
    for name in ("unlink", "rename", "replace", "mkdir"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
"""

ERASE = """
import datetime as dt, pathlib
from dpdau.activity.embedded import EmbeddedStore
from stores import NOW, TINY
store = EmbeddedStore(pathlib.Path(sys.argv[2]), clock=lambda: NOW, limits=TINY)
store.check_writable()
arm()
store.forget([int(one) for one in sys.argv[3:]], erasure_id="it", done_at=NOW)
print("done", seen, flush=True)
"""

BACK_UP = """
import pathlib
from dpdau.app import App, back_up
from dpdau.datadir import DataDir
from products import NOW, product_settings
root = pathlib.Path(sys.argv[2])
app = App.open(product_settings(root), clock=lambda: NOW, read_only=True)
arm()
back_up(DataDir(root / "data"), app.ledger, root / "copy", clock=lambda: NOW)
print("done", seen, flush=True)
"""

RESTORE = """
import pathlib
from dpdau.app import restore_all
from products import NOW, product_settings
root = pathlib.Path(sys.argv[2])
arm()
restore_all(product_settings(root), root / "copy", reason="test", accept_older=True,
            clock=lambda: NOW)
print("done", seen, flush=True)
"""


def run(program: str, at: int, *arguments: object) -> int | None:
    """Runs a program that kills itself at a point; None if it was killed, else all its points."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER + program, str(at), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return int(done.stdout.split()[1])
    assert -9 == done.returncode, done.stderr
    return None


def filled(root: Path) -> None:
    """A store with the user at every level, under both names, in an open month and a live day."""
    with closing(EmbeddedStore(root, clock=lambda: NOW, limits=TINY)) as store:
        store.open_month("2026-03", lookback_days=30)
        store.live.open("2026-03")
        for number in range(USERS):
            who = ALIAS if number % 7 == 0 else number * 0x165667B19E3779F9 % 2**64
            day = day_number(dt.date(2026, 3, 1)) + number % 9
            alias = (lambda _who: [ALIAS]) if number > USERS - 3 else None
            some = [Event(WHO if alias else who, Op.ADD, day, number + 1)]
            store.apply(batch(some, alias=alias))
            if number == USERS // 2:
                store.freeze("2026-03", dt.date(2026, 3, 1))
                store.live.begin(dt.date(2026, 3, 8))


def counts_of(store: EmbeddedStore) -> list[list[int]]:
    """All the windows that end in the first days of the month."""
    first = dt.date(2026, 3, 1)
    last = first + dt.timedelta(days=12)
    return store.counts(first=first, last=last, window_days=(1, 7)).tolist()


def test_a_killed_erasure_is_done_or_not_begun(tmp_path: Path) -> None:
    """With a receipt no byte of the user is left, without one everything of the user is."""
    filled(tmp_path / "whole")
    with closing(EmbeddedStore(tmp_path / "whole", clock=lambda: NOW, limits=TINY)) as store:
        before = counts_of(store)
    points = run(ERASE, 0, tmp_path / "whole", WHO, ALIAS)
    assert points is not None
    assert points > 20
    outcomes = set()
    for at in sorted({1, 2, points // 3, points // 2, *range(points - 7, points + 1)}):
        root = tmp_path / f"killed-{at}"
        filled(root)
        assert run(ERASE, at, root, WHO, ALIAS) is None
        with closing(EmbeddedStore(root, clock=lambda: NOW, limits=TINY)) as store:
            try:
                erased = store.receipt("it").files_cleared
            except NotFoundError:
                erased = False
                assert before == counts_of(store)
            store.flush()
            findings = inspect(root, store_key=None, names=[WHO, ALIAS])
            assert [] == findings.problems
            assert erased == (not findings.rows_found)
            assert erased == bool(findings.tombstones_found)
            held = sum(
                path.read_bytes().count(who.to_bytes(8, "little"))
                for path in root.rglob("*")
                if path.is_file()
                for who in (WHO, ALIAS)
            )
            assert not erased or findings.tombstones_found.total() == held
            outcomes.add(erased)
    assert {True, False} == outcomes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A product with some activity and a release."""
    with product(tmp_path) as app:
        send(app, [event(f"user-{number}", DAY) for number in range(9)])
    return tmp_path


def opened(root: Path) -> App:
    """The product of a folder."""
    return App.open(product_settings(root), clock=lambda: NOW, noise=ZeroNoise())


def spread(points: int) -> list[int]:
    """A few points from the first to the last one."""
    return sorted({1, points, points - 1, *(points * place // 5 for place in range(2, 5))})


@pytest.mark.slow
def test_a_killed_backup_does_not_pass_for_one(root: Path) -> None:
    """The folder is there and sound, or there is none; the next backup removes what is left."""
    points = run(BACK_UP, 0, root)
    assert points is not None
    first = root / "copy"
    first.rename(root / "first")
    for at in spread(points):
        assert run(BACK_UP, at, root) is None
        if first.exists():
            found = restore_all(product_settings(root), first, reason="", verify_only=True)
            assert found.unchanged
            first.rename(root / f"copy-{at}")
    with closing(opened(root)) as app:
        back_up(DataDir(root / "data"), app.ledger, first, clock=lambda: NOW)
    assert [] == list(root.glob("*.partial"))


@pytest.mark.slow
def test_a_killed_restore_leaves_the_old_state_or_says_how_to_go_on(root: Path) -> None:
    """After a kill the product opens as it was, as it should be, or not until the same restore."""
    with closing(opened(root)) as app:
        back_up(DataDir(root / "data"), app.ledger, root / "copy", clock=lambda: NOW)
        send(app, [event("later", DAY)])
    seen: set[str] = set()
    total = run(RESTORE, 0, root)
    assert total is not None
    for at in spread(total):
        with closing(opened(root)) as app:
            send(app, [event("later", DAY)])
        if run(RESTORE, at, root) is not None:
            continue
        outcome = _outcome(root)
        assert outcome in {"9", "10", "unfinished"}
        seen.add(outcome)
        with closing(opened(root)) as app:
            app.erasures.flush(DataDir(root / "data"))
            assert app.erasures.prove(DataDir(root / "data")).ok
        assert not (root / "data" / "restore").exists()
    assert {"10", "unfinished"} <= seen


def _outcome(root: Path) -> str:
    """The users that are counted after a kill; or that it has to be restored again, which works."""
    if not (root / "data" / "restore.json").exists():
        return str(_users(root))
    with pytest.raises(StoreCorruptError, match="Run the same `dpdau restore` again"):
        opened(root)
    restore_all(
        product_settings(root), root / "copy", reason="", accept_older=True, clock=lambda: NOW
    )
    assert 9 == _users(root)
    return "unfinished"


def _users(root: Path) -> int:
    """How many users were active on the day."""
    with closing(opened(root)) as app:
        (counts,) = app.exact({Metric.DAU: 1}, DAY, DAY, reason="test").values()
        return int(counts[0])


def test_a_damaged_backup_is_refused_before_anything_changes(root: Path) -> None:
    """A flipped bit, a file too many and a file too few are each found, and nothing is touched."""
    with closing(opened(root)) as app:
        back_up(DataDir(root / "data"), app.ledger, root / "copy", clock=lambda: NOW)
        send(app, [event("later", DAY)])
    manifest = root / "copy" / "activity" / "manifest.sqlite"
    whole = manifest.read_bytes()
    for damage in _damages(root / "copy"):
        damage()
        with pytest.raises(StoreCorruptError):
            restore_all(product_settings(root), root / "copy", reason="", accept_older=True)
        manifest.write_bytes(whole)
    (root / "copy" / "backup.json").unlink()
    with pytest.raises(InvalidSettingError):
        restore_all(product_settings(root), root / "copy", reason="", accept_older=True)
    assert 10 == _users(root)


def _damages(copy: Path) -> list[Callable[[], object]]:
    """What may befall a copy; each leaves the manifest to be put back."""
    manifest, extra = copy / "activity" / "manifest.sqlite", copy / "activity" / "extra"
    body = bytearray(manifest.read_bytes())
    body[5000] ^= 1
    return [
        lambda: manifest.write_bytes(bytes(body)),
        manifest.unlink,
        lambda: extra.write_bytes(b"more"),
    ]
