"""The recipe for Litestream: what it copies while the ledger is written brings nothing back twice.

Not collected with the suite, as building Litestream takes minutes: `make verify-deploy` names it.
"""

import datetime as dt
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import go_programs
from dpdau.app import App
from dpdau.cli.root import run
from dpdau.domain import Metric
from products import DAY, NOW, event, product_settings, send

TESTS = Path(__file__).parent.parent
RECIPE = TESTS.parent / "deploy" / "litestream" / "litestream.yml"
SMALL = {"EPSILON_DAU": 0.0001, "DAU_BUDGET_TOTAL": 50}
WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {paths}
from surface.deploy_litestream import write_until_killed
write_until_killed(Path(sys.argv[1]))
"""


def write_until_killed(root: Path) -> None:
    """Releases one number after the other, and prints its id once it is told."""
    with opened(root).closing() as app:
        send(app, [event(f"user-{number}") for number in range(10)])
        while True:
            told = app.release(Metric.DAU, DAY, fresh=True).release.release_id
            os.write(sys.stdout.fileno(), f"{told}\n".encode())


def opened(root: Path) -> App:
    """The product, with a budget for many numbers."""
    return App.open(product_settings(root, **SMALL), clock=lambda: NOW, reported=False)


@contextmanager
def started(*command: str | Path, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """A process, which is dead afterwards."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: "subprocess.Popen[str]", count: int) -> list[str]:
    """The next lines of what a process prints."""
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


class Replica:
    """A ledger, Litestream beside it, and where it copies to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = root / "data" / "ledgers" / "ledger.sqlite"
        self._program = go_programs.litestream()
        self._environment = {
            "DATA_DIR": str(root / "data"),
            "LITESTREAM_REPLICA": f"file://{root / 'replica'}",
        }

    @contextmanager
    def running(self) -> "Iterator[subprocess.Popen[str]]":
        """Litestream, once it has copied all that was there."""
        command = (self._program, "replicate", "-config", RECIPE)
        with started(*command, **self._environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "snapshot complete" in line:
                    break
            yield process

    def restored(self) -> Path:
        """The ledger as the replica has it."""
        target = self.root / "restored.sqlite"
        command = [self._program, "restore", "-config", RECIPE, "-o", target, self.ledger]
        subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **self._environment},
            check=True,
            capture_output=True,
        )
        return target


def last_entry(path: Path) -> int:
    """The number of the last entry of a ledger."""
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
    return int(found)


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    """A ledger that is there before Litestream is started."""
    with opened(tmp_path).closing() as app:
        app.release(Metric.DAU, DAY)
    return Replica(tmp_path)


@contextmanager
def writer(root: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process that releases numbers, as fast as it can."""
    with started(sys.executable, "-c", WRITER.format(paths=[str(TESTS)]), root) as process:
        yield process


def test_a_ledger_that_died_under_load_comes_back_whole(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number that was told is in the copy with its charge; it verifies here and there."""
    with replica.running() as litestream:
        with writer(tmp_path) as writing:
            told = lines(writing, 60)
            writing.send_signal(signal.SIGKILL)
        litestream.send_signal(signal.SIGTERM)
        litestream.communicate(timeout=60)
    copy = replica.restored()

    product_settings(tmp_path, **SMALL)
    monkeypatch.chdir(tmp_path)
    assert 0 == run(["restore", str(copy), "--verify"])
    assert last_entry(replica.ledger) == last_entry(copy)
    elsewhere = tmp_path / "elsewhere"
    product_settings(elsewhere, **SMALL)
    monkeypatch.chdir(elsewhere)
    assert 0 == run(["restore", str(copy)])
    assert 0 == run(["audit"])
    month = f"{DAY:%Y-%m}"
    with opened(tmp_path).closing() as here, opened(elsewhere).closing() as there:
        known = {one.release_id for one in there.releases(after=None, limit=1000)[0]}
        assert set(told) <= known
        states = [app.ledger.states(month)[0].spent for app in (here, there)]
    assert states[0] == states[1]


def test_a_copy_that_lacks_the_last_second_is_refused(
    replica: Replica,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was released after Litestream died is not in it: the mark keeps it from refunding."""
    with replica.running() as litestream, writer(tmp_path) as writing:
        lines(writing, 30)
        litestream.send_signal(signal.SIGKILL)
        litestream.communicate(timeout=60)
        lines(writing, 30)
        writing.send_signal(signal.SIGKILL)
    copy = replica.restored()
    missing = last_entry(replica.ledger) - last_entry(copy)

    product_settings(tmp_path, **SMALL)
    monkeypatch.chdir(tmp_path)
    replica.ledger.unlink()
    assert 6 == run(["restore", str(copy)])
    assert re.search(r"high-water mark", capsys.readouterr().err)
    assert missing > 0


def test_the_recipe_asks_for_a_second_and_a_month() -> None:
    """What the guide says of it."""
    text = RECIPE.read_text()
    assert "sync-interval: 1s" in text
    assert dt.timedelta(days=30) == dt.timedelta(
        hours=int(re.findall(r"retention: (\d+)h", text)[0])
    )
