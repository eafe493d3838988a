"""The reading side of the embedded store: consistent snapshots and what is true in them.

For each table the history is, oldest first: the files of a part, then the commits that are not
yet cut by key. A snapshot names the files and holds the commits merged in memory.
"""

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.held import PlanMonth
from dpdau.activity.manifest import UNSPLIT, Manifest, PendingRef, SegmentRef
from dpdau.activity.runs import (
    PARTS,
    Rows,
    Run,
    Table,
    find,
    fold_runs,
    map_rows,
    merge_rows,
    merge_runs,
    part_slice,
    pick,
    row_count,
)
from dpdau.activity.sealing import Sealer
from dpdau.activity.segments import SegmentFiles, decode

_SETTLED: Final = "settled"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the store.

    Attributes:
        files: Where to read columns.
        segments: (table kind, part) → files, oldest first.
        pending: All small commits, oldest first.
        deltas: Table kind → all commits that are not yet cut by key, as one run.
        months: The open months, oldest first.
        live: The day number that is counted live, or None.
    """

    files: SegmentFiles
    segments: Mapping[tuple[str, int], Sequence[SegmentRef]]
    pending: Sequence[PendingRef]
    deltas: Mapping[str, Run]
    months: Sequence[PlanMonth]
    live: int | None

    @classmethod
    def bare(cls, files: SegmentFiles, manifest: Manifest) -> "Snapshot":
        """The state of a manifest, without deltas."""
        segments: dict[tuple[str, int], list[SegmentRef]] = {}
        for ref in manifest.segments():
            segments.setdefault((ref.kind, ref.part), []).append(ref)
        months, live = manifest.open_months(), manifest.live.day()
        return cls(files, segments, manifest.pending(), {}, months, live)

    def part(self, table: Table, part: int) -> Sequence[SegmentRef]:
        """The files of one part, oldest first."""
        return self.segments.get((table.kind, part), ())

    def first_group(self, table: Table) -> int:
        """A group that no row of a table comes before; 0 where there are no rows."""
        refs = [
            ref for (kind, _), some in self.segments.items() if kind == table.kind for ref in some
        ]
        return min((*(ref.file.group_min for ref in refs), *self.deltas[table.kind]), default=0)

    def size(self, table: Table) -> int:
        """About how many rows a table has: those of its files and of its deltas."""
        files = sum(
            ref.file.rows
            for (kind, part), refs in self.segments.items()
            if kind == table.kind and part != UNSPLIT
            for ref in refs
        )
        return files + row_count(self.deltas.get(table.kind, {}))

    def loose(self, table: Table) -> Sequence[SegmentRef]:
        """The files that are not yet cut by key, oldest first."""
        return self.part(table, UNSPLIT)

    def small(self, table: Table) -> list[PendingRef]:
        """The small commits of one table, oldest first."""
        return [ref for ref in self.pending if ref.kind == table.kind]

    def net(self, table: Table, part: int, group: int) -> Rows | None:
        """The rows of one part and group after the whole history; may hold rows without effect."""
        base = self._base(table, part, group)
        rows = self.deltas[table.kind].get(group)
        if rows is None:
            return base
        return merge_rows(table, base, rows.take(part_slice(rows.key, part)))

    def warm(self, table: Table, groups: Iterable[int]) -> None:
        """Merges the files of some groups now, so that the next query finds them merged."""
        for group in groups:
            for part in range(PARTS):
                self._base(table, part, group)

    def _base(self, table: Table, part: int, group: int) -> Rows | None:
        """The settled rows of one part and group in all files; kept for the next query."""
        names = tuple(
            ref.file.name
            for ref in self.part(table, part)
            if ref.file.group_min <= group <= ref.file.group_max
        )
        if len(names) == 1:
            # The only file with this group may be newer than files without it: nothing is older.
            only = self.files.rows(table, names[0], group)
            return None if only is None else table.settle(only)
        known = self.files.cache.get((names, group, _SETTLED))
        if known is not None:
            return Rows(known[0], known[1:])
        rows: Rows | None = None
        # Newest first, so that the small sides meet before the large one.
        for name in reversed(names):
            rows = merge_rows(table, self.files.rows(table, name, group, cached=False), rows)
        if rows is None:
            return None
        rows = table.settle(rows)
        self.files.cache.put((names, group, _SETTLED), (rows.key, *rows.values))
        return rows

    def lookup(self, table: Table, keys: NDArray[np.uint64], *, groups: range | None = None) -> Run:
        """What is true of some keys.

        Args:
            table: The table to look in.
            keys: (n,) uint64, strictly increasing.
            groups: Where to look; None for every group.
        """
        found: Run = {}
        for part in range(PARTS):
            wanted = keys[part_slice(keys, part)]
            if wanted.shape[0]:
                for ref in self.part(table, part):
                    rows = self._pick(table, ref.file.name, wanted, groups)
                    found = merge_runs(table, found, rows)
        waiting = self.deltas[table.kind].items()
        near = [one for one in waiting if groups is None or one[0] in groups]
        delta = map_rows(near, lambda _group, rows: pick(rows, keys))
        found = merge_runs(table, found, delta)
        return map_rows(found.items(), lambda _group, rows: table.settle(rows))

    def holds(self, table: Table, ref: SegmentRef, keys: NDArray[np.uint64]) -> bool:
        """Whether a file has a row of one of some sorted unique keys."""
        name = ref.file.name
        return any(
            bool(find(self.files.keys(table, name, group, cached=False), keys)[1].any())
            for group in self.files.groups(table, name)
        )

    def _pick(self, table: Table, name: str, keys: NDArray[np.uint64], groups: range | None) -> Run:
        """The rows of some keys in one file; value columns are read only where a key is found."""
        found = {}
        for group in self.files.groups(table, name):
            if groups is not None and group not in groups:
                continue
            at, hit = find(self.files.keys(table, name, group), keys)
            if hit.any():
                rows = self.files.rows(table, name, group)
                assert rows is not None
                found[group] = rows.take(at[hit])
        return found


@dataclass(frozen=True, slots=True)
class _Delta:
    """Commits that are merged in memory."""

    seqs: tuple[int, ...]
    run: Run


_NOTHING: Final = _Delta((), {})


class History:
    """Takes snapshots over one read-only connection; safe to use from several threads."""

    def __init__(self, manifest: Manifest, files: SegmentFiles, sealer: Sealer) -> None:
        self._manifest = manifest
        self._files = files
        self._sealer = sealer
        self._lock = threading.Lock()
        self._deltas: dict[str, _Delta] = {}
        self._recent: dict[PendingRef, Run] = {}

    def remember(self, ref: PendingRef, run: Run) -> None:
        """Keeps a small commit in memory until it is asked for, so that it need not be read."""
        self._recent[ref] = run

    def forget_recent(self) -> None:
        """Lets go of small commits whose place is about to be taken."""
        self._recent.clear()

    def snapshot(self, tables: Iterable[Table]) -> Snapshot:
        """The newest state, with the deltas of some tables.

        Raises:
            FileNotFoundError: A merge replaced a file meanwhile; take another snapshot.
        """
        with self._lock:
            with self._manifest.reading():
                bare = Snapshot.bare(self._files, self._manifest)
                plans = [(table, *self._plan(table, bare)) for table in tables]
                runs = {
                    ref: self._recent.pop(ref, {}) or self._read(table, ref)
                    for table, _known, fresh in plans
                    for ref in fresh
                    if isinstance(ref, PendingRef)
                }
            deltas = {
                table.kind: self._extend(table, known, fresh, runs) for table, known, fresh in plans
            }
            return dataclasses.replace(bare, deltas=deltas)

    def names(self, name: str) -> bool:
        """Whether the newest state refers to a file of this name."""
        with self._lock, self._manifest.reading():
            return any(ref.file.name == name for ref in self._manifest.segments())

    def drop_cache(self) -> None:
        """Frees merged commits from memory."""
        with self._lock:
            self._deltas.clear()
            self._recent.clear()

    def _read(self, table: Table, ref: PendingRef) -> Run:
        """A small commit out of the manifest."""
        name = pending_name(ref)
        payload = self._manifest.payload(ref)
        return decode(payload, table, self._sealer.for_file(name), name)

    def _plan(self, table: Table, bare: Snapshot) -> tuple[_Delta, list[SegmentRef | PendingRef]]:
        """The part of a table's delta that is merged already, and the commits that it lacks."""
        commits: list[SegmentRef | PendingRef] = [*bare.loose(table), *bare.small(table)]
        commits.sort(key=lambda ref: ref.seq)
        known = self._deltas.get(table.kind, _NOTHING)
        size = len(known.seqs)
        if tuple(ref.seq for ref in commits[:size]) != known.seqs:
            return _NOTHING, commits
        return known, commits[size:]

    def _extend(
        self,
        table: Table,
        known: _Delta,
        fresh: Sequence[SegmentRef | PendingRef],
        runs: Mapping[PendingRef, Run],
    ) -> Run:
        """The delta of a table with fresh commits merged in; keeps it for the next snapshot."""
        history = [
            runs[ref] if isinstance(ref, PendingRef) else self._files.run(table, ref.file.name)
            for ref in fresh
        ]
        run = merge_runs(table, known.run, fold_runs(table, history))
        self._deltas[table.kind] = _Delta((*known.seqs, *(ref.seq for ref in fresh)), run)
        return run


def pending_name(ref: PendingRef) -> str:
    """The name under which the payload of a small commit is sealed."""
    return f"manifest:{ref.kind}:{ref.seq}"
