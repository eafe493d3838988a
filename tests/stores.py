"""Small stores for tests: limits that a handful of rows passes, a key, and a folder in memory."""

import datetime as dt
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.store import ActivityStore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from dpdau.activity.spark.store import SparkStore

NOW: Final = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
KEY: Final = bytes(range(32))
TINY: Final = StoreLimits(
    direct_rows_min=3,
    pending_rows_max=6,
    pending_commits_max=2,
    loose_files_max=1,
    part_rows_min=4,
    part_files_max=2,
    cache_bytes_max=2048,
    lock_wait_seconds=0.05,
)
SHARES: Final = {"plain": 1.0, "encrypted": 0.4, "reopened": 0.4, "lake": 0.1}
"""How many examples each kind is given of those of the first: the second and third are the same
code over other files, and a job of Spark takes a hundred times as long as a call of the first."""


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where the system has one: for tests that ask about answers, not disks."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


class Reopening:
    """An embedded store that is closed and opened again around every call."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            store = EmbeddedStore(self._root, clock=lambda: NOW, limits=TINY)
            try:
                return getattr(store, name)(*args, **named)
            finally:
                store.close()

        return call


@dataclass(frozen=True)
class Stores:
    """Makes empty stores of one implementation.

    Attributes:
        make: Makes the next one.
        share: How many examples it is given, of those that a quick one is given.
    """

    make: Callable[[], ActivityStore]
    share: float = 1.0

    def __call__(self) -> ActivityStore:
        """An empty store; it is closed at the end of the test."""
        return self.make()

    def examples(self, many: int) -> int:
        """How many examples a property is tried on, where a quick store is given so many."""
        return max(1, round(many * self.share))


@contextmanager
def stores_of(kind: str, folder: Path, spark: "Callable[[], SparkSession]") -> Iterator[Stores]:
    """The stores of one implementation, closed afterwards.

    Args:
        kind: "plain", "encrypted", "reopened" or "lake".
        folder: Where each gets a folder.
        spark: Gives the session for a lake.
    """
    made: list[ActivityStore] = []
    session = spark() if kind == "lake" else None

    def new() -> ActivityStore:
        root = folder / str(len(made))
        if session is not None:
            made.append(small_lake(root, session))
        elif kind == "reopened":
            made.append(Reopening(root))  # type: ignore[arg-type]
        else:
            key = KEY if kind == "encrypted" else None
            made.append(EmbeddedStore(root, store_key=key, clock=lambda: NOW, limits=TINY))
        return made[-1]

    yield Stores(new, share=SHARES[kind])
    for store in made:
        store.close()


def small_lake(root: Path, spark: "SparkSession", **options: Any) -> "SparkStore":
    """A lake that is folded after a few commits, and cut by key where it has a few rows."""
    from dpdau.activity.spark.store import SparkStore
    from dpdau.activity.spark.writer import LakeLimits

    limits = LakeLimits(commits_max=3, split_rows_min=8, lock_wait_seconds=0.05)
    named = {"lake": root / "lake", "clock": lambda: NOW, "limits": limits} | options
    return SparkStore(root / "activity", spark=spark, **named)
