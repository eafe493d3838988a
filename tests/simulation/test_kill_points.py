"""Each point at which work can be cut off: what is left is what was before, or what comes after."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulation.auditor import changed_bodies, ledger_problems
from simulation.point_cases import CASES, State, look
from simulation.points import FULL, KILL, READ_ONLY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill points")]

SEED = int(os.environ.get("DPDAU_SEED", "20260315"))
SOAKING = "DPDAU_SOAK" in os.environ
POINTS_MAX = 150 if SOAKING else 2
"""Points that are tried of one piece of work, of refusals half as many; with `DPDAU_SOAK`, most."""


class Forks:
    """The process whose forks do the work."""

    def __init__(self) -> None:
        tests = Path(__file__).parents[1]
        path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("point_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdout is not None
        assert "ready\n" == self.process.stdout.readline(), "see what it said on standard error"

    def run(self, root: Path, case: str, *, fault: str = KILL, at: int | None = None) -> int:
        """Does the work in a fork and gives how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        command = {"root": str(root), "case": case, "fault": fault, "at": at}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        status: int = json.loads(self.process.stdout.readline())["status"]
        return status


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """The process, with everything imported."""
    one = Forks()
    with one.process:
        yield one
        assert one.process.stdin is not None
        one.process.stdin.close()


def chosen(names: list[str], name: str) -> list[int]:
    """The points to try: all, or some of those that are different."""
    if len(names) <= POINTS_MAX:
        return list(range(len(names)))
    drawn = random.Random(f"{SEED} {name}")
    first_of = {step: at for at, step in reversed(list(enumerate(names)))}
    different = sorted(first_of.values() if len(first_of) > POINTS_MAX else range(len(names)))
    return sorted(drawn.sample(different, min(POINTS_MAX, len(different))))


def check(state: State, expected: tuple[State, ...], context: str) -> None:
    """Counts are of one moment or the other, and the books are sound."""
    assert () == state.problems, context
    assert state.counts in [one.counts for one in expected], context
    assert state.charges in range(expected[0].charges, expected[-1].charges + 1), context
    assert numbers(expected[0]) <= numbers(state) <= numbers(expected[-1]), context
    planned = Counter(
        one["day"] for one in state.releases.values() if one["plan_id"].startswith("plan-")
    )
    assert set(planned.values()) <= {3}, f"{context}: a day of a plan is whole: {planned}"


def numbers(state: State) -> Counter[tuple[object, ...]]:
    """What is released, without what is drawn at random; noise adds nothing here."""
    return Counter(
        (one["metric"], one["day"], one["window_days"], one["estimate"])
        for one in state.releases.values()
    )


@dataclass(frozen=True)
class Ground:
    """What a case starts from and where it ends; the points on its way under each fault."""

    start: Path
    before: State
    after: State
    names: dict[str, list[str]]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Callable[[str], Ground]:
    """Does the work of a case once without a fault; what it starts from is made once."""
    started: dict[str, Path] = {}
    known: dict[str, Ground] = {}

    def ground(name: str) -> Ground:
        if name in known:
            return known[name]
        case = CASES[name]
        start = started.get(repr(case.prepare)) or tmp_path_factory.mktemp("start") / "root"
        if not start.exists():
            case.prepare(start)
            started[repr(case.prepare)] = start
        looked_at = shutil.copytree(start, tmp_path_factory.mktemp("before") / "root")
        names = {}
        for fault in (KILL, FULL):
            done = shutil.copytree(start, tmp_path_factory.mktemp("done") / "root")
            assert 0 == forks.run(done, name, fault=fault), _bug(done)
            names[fault] = json.loads((done / "points").read_text())
            assert names[fault]
        known[name] = Ground(start, look(case, looked_at), look(case, done), names)
        return known[name]

    return ground


@pytest.mark.parametrize("name", CASES)
def test_death_at_a_point_leaves_before_or_after(
    tmp_path: Path, forks: Forks, grounds: Callable[[str], Ground], name: str
) -> None:
    """After a death the product starts, shows the one or the other, and the work can be done."""
    case, ground = CASES[name], grounds(name)
    for at in chosen(ground.names[KILL], name):
        root = shutil.copytree(ground.start, tmp_path / f"at-{at}")
        context = f"DPDAU_SEED={SEED}: {name}, point {at}: {ground.names[KILL][at]}"
        assert -signal.SIGKILL == forks.run(root, name, at=at), context + _bug(root)
        state = look(case, root)
        check(state, _moments(name, ground, state), context)
        seen = ground.before.releases
        assert [] == changed_bodies(seen, list(state.releases.values())), context
        assert [] == ledger_problems(root / "data" / "ledgers" / "ledger.sqlite", caps={}), context

        case.run(root)
        again = look(case, root)
        check(again, (ground.after,), context)
        assert [] == changed_bodies(state.releases, list(again.releases.values())), context
        shutil.rmtree(root)


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_at_a_point_is_an_error_that_loses_nothing(
    tmp_path: Path, forks: Forks, grounds: Callable[[str], Ground], name: str
) -> None:
    """Where the disk refuses, the caller hears exit code 5, and the same process goes on after."""
    ground = grounds(name)
    for at in chosen(ground.names[FULL], name)[:: 1 if SOAKING else POINTS_MAX]:
        fault = (FULL, READ_ONLY)[at % 2]
        root = shutil.copytree(ground.start, tmp_path / f"at-{at}")
        context = f"DPDAU_SEED={SEED}: {name}, {fault}, point {at}: {ground.names[FULL][at]}"
        assert 0 == forks.run(root, name, fault=fault, at=at), context + _bug(root)
        refused = root / "refused"
        assert not refused.exists() or refused.read_text().startswith("5 "), (
            context + refused.read_text()
        )
        check(look(CASES[name], root), (ground.after,), context)
        shutil.rmtree(root)


def _moments(name: str, ground: Ground, found: State) -> tuple[State, ...]:
    """What may be seen after a death; work of several commits has moments of its own between."""
    if name in ("fold and merge", "erase", "erase under a plan", "purge"):
        return (ground.before, found, ground.after)
    return (ground.before, ground.after)


def _bug(root: Path) -> str:
    """What a fork met that it should not."""
    note = root / "bug"
    return f"\n{note.read_text()}" if note.exists() else ""
