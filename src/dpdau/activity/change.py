"""One change of the store, what waits to be folded, and when it is."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dpdau.activity.manifest import PendingRef, SegmentRef
from dpdau.activity.runs import Run, Table, merge_runs
from dpdau.activity.segments import SegmentFile


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """When the store folds and merges, and how much memory it may use. Performance only.

    Attributes:
        direct_rows_min: A commit with this many rows becomes a file at once.
        pending_rows_max: Rows that may wait uncut; more are cut by key into files.
        pending_commits_max: Small commits that may wait in the manifest.
        loose_files_max: Uncut files that may wait.
        part_rows_min: Fewer waiting rows than this are folded inside the manifest.
        part_files_max: Files of one part and table; more are merged.
        cache_bytes_max: Memory for columns that queries read again.
        lock_wait_seconds: How long a writer waits for another one.
    """

    direct_rows_min: int = 16_384
    pending_rows_max: int = 1 << 20
    pending_commits_max: int = 512
    loose_files_max: int = 16
    part_rows_min: int = 32_768
    part_files_max: int = 8
    cache_bytes_max: int = 512 << 20
    lock_wait_seconds: float = 2.0


@dataclass(slots=True)
class Change:
    """What one transaction adds to the store and what it replaces.

    Attributes:
        runs: Rows for the manifest.
        files: New files, each with its part and its place in the history, or None for the end.
        old_files: Files that are replaced.
        old_pending: Rows of the manifest that are replaced.
        place: The place of `runs` in the history, or None for the end.
    """

    runs: dict[Table, Run] = field(default_factory=dict)
    files: list[tuple[Table, int, int | None, SegmentFile]] = field(default_factory=list)
    old_files: list[SegmentRef] = field(default_factory=list)
    old_pending: list[PendingRef] = field(default_factory=list)
    place: int | None = None

    def add_run(self, table: Table, run: Run) -> None:
        """Adds a small commit, after what the change holds already of the same table."""
        self.runs[table] = merge_runs(table, self.runs.get(table, {}), run)


class Waiting(NamedTuple):
    """What of a table is not yet cut by key: small commits, files, and the rows in both."""

    commits: int
    files: int
    rows: int

    def plus(self, other: "Waiting") -> "Waiting":
        """Both together."""
        return Waiting(*map(sum, zip(self, other, strict=True)))
