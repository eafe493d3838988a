"""What the tests of this room share: stores whose limits are so low that every level is used."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.upkeep import StoreLimits

NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
TINY = StoreLimits(
    direct_rows_min=3,
    pending_rows_max=6,
    pending_commits_max=2,
    loose_files_max=1,
    part_rows_min=4,
    part_files_max=2,
    cache_bytes_max=2048,
    lock_wait_seconds=0.05,
)


@pytest.fixture
def tiny() -> StoreLimits:
    """Limits that a handful of rows passes."""
    return TINY


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., EmbeddedStore]]:
    """Opens the store of this test, with any option."""
    opened: list[EmbeddedStore] = []

    def open_(**options: object) -> EmbeddedStore:
        named = {"clock": lambda: NOW, "limits": TINY} | options
        opened.append(EmbeddedStore(tmp_path / "activity", **named))  # type: ignore[arg-type]
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
