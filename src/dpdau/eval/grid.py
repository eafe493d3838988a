"""What the experiment is made of: streams, removals, and the ε at which they are published."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from dpdau.eval.streams import Kind, MonthStream, Pattern, Removal, data_set, remove, synthetic

__all__ = ["FULL", "QUICK", "Experiment", "Level", "Size", "Task", "Workload"]

SYNTHETIC: Final = "synthetic"
SYNTHETIC_MONTH: Final = dt.date(2026, 4, 1)
ERASURES_MAX: Final = 2_000
"""Above it a workload is run at one level, for its erasures alone take minutes."""


@dataclass(frozen=True, slots=True)
class Level:
    """One set of ε: of the month plan, of one DAU and of one MAU release on demand."""

    plan: str
    dau: str
    mau: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One stream: what data, who is removed, and the seed of both."""

    data: str
    users: int
    removal: Removal
    seed: int

    @property
    def erasures(self) -> float:
        """About how many users are erased, one by one, which takes most of the time."""
        return self.users * self.removal.share * (self.removal.kind is Kind.ERASE)

    def stream(self) -> MonthStream:
        """The events and removals of the month."""
        plain = (
            synthetic(self.users, SYNTHETIC_MONTH, seed=self.seed)
            if self.data == SYNTHETIC
            else data_set(self.data)
        )
        return remove(plain, self.removal, seed=self.seed)

    def to_json(self) -> dict[str, Any]:
        """What a row of the results says about its workload."""
        return {
            "data": self.data,
            "users": self.users,
            "removed": self.removal.share,
            "pattern": self.removal.pattern.value if self.removal.share else "none",
            "kind": self.removal.kind.value if self.removal.share else "none",
            "removal": self.removal.label,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Task:
    """One workload at one level; the first level also carries the methods on exact counts."""

    workload: Workload
    level: Level
    totals: tuple[str, ...]
    delta: str


@dataclass(frozen=True, slots=True)
class Size:
    """A number of users, and how many streams are drawn without and with removals."""

    users: int
    plain: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A grid of workloads and levels.

    Args:
        name: The preset's name.
        sizes: The synthetic streams.
        removals: What is done to each of them.
        levels: The ε of the product's verbs.
        main: The one level at which a workload with more than `ERASURES_MAX` erasures is run.
        totals: The ε, for the month, of the methods that stand on exact counts.
        delta: δ of all of them.
        data_sets: Names of real data sets.
        data_set_removals: What is done to each of them.
        data_set_repeats: How often removals and noise are drawn for each of them.
    """

    name: str
    sizes: tuple[Size, ...]
    removals: tuple[Removal, ...]
    levels: tuple[Level, ...]
    main: Level
    totals: tuple[str, ...]
    delta: str = "1e-6"
    data_sets: tuple[str, ...] = ()
    data_set_removals: tuple[Removal, ...] = ()
    data_set_repeats: int = 1

    def workloads(self, seed: int) -> list[Workload]:
        """Every workload, its streams seeded from `seed` on."""
        made = [
            Workload(SYNTHETIC, size.users, removal, seed + repeat)
            for size in self.sizes
            for removal in self.removals
            for repeat in range(size.removed if removal.share else size.plain)
        ]
        return made + [
            Workload(name, 0, removal, seed + repeat)
            for name in self.data_sets
            for removal in self.data_set_removals
            for repeat in range(self.data_set_repeats)
        ]

    def tasks(self, seed: int) -> list[Task]:
        """Every workload at every one of its levels."""
        made = []
        for workload in self.workloads(seed):
            levels = (self.main,) if workload.erasures > ERASURES_MAX else self.levels
            made += [
                Task(workload, level, self.totals if level == levels[0] else (), self.delta)
                for level in levels
            ]
        return made


_NONE: Final = Removal(0.0)
_MAIN: Final = Level("1.0", "1.0", "1.0")
FULL: Final = Experiment(
    name="full",
    sizes=(Size(10_000, 3, 2), Size(100_000, 3, 1)),
    removals=(
        _NONE,
        *(Removal(share, pattern) for pattern in Pattern for share in (0.05, 0.20)),
        Removal(0.05, Pattern.RANDOM, Kind.RETRACT),
        Removal(0.20, Pattern.ADVERSARIAL, Kind.RETRACT),
    ),
    levels=(
        Level("0.1", "0.1", "0.1"),
        Level("0.5", "0.3", "0.5"),
        _MAIN,
        Level("1.5", "1.0", "1.5"),
    ),
    main=_MAIN,
    totals=("0.1", "0.3", "0.5", "1.0", "1.5"),
    data_sets=("cdnow", "nycflights"),
    data_set_removals=(_NONE, Removal(0.05)),
    data_set_repeats=2,
)
QUICK: Final = Experiment(
    name="quick",
    sizes=(Size(1_000, 1, 1),),
    removals=(_NONE, Removal(0.10, Pattern.ADVERSARIAL)),
    levels=(_MAIN,),
    main=_MAIN,
    totals=("1.0",),
)
