"""Small stores for tests: limits that a handful of rows passes, a key, and a folder in memory."""

import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dpdau.activity.change import StoreLimits

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


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where the system has one: for tests that ask about answers, not disks."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)
