"""Looks at every byte of a store: whether it is sound, and whether someone is still in it."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.access import MANIFEST, SEGMENTS
from dpdau.activity.held import HELD, PlanMonth, kept_of
from dpdau.activity.history import Snapshot, pending_name
from dpdau.activity.labels import LABELS, plan_groups
from dpdau.activity.manifest import UNSPLIT, Manifest, SegmentRef
from dpdau.activity.masks import PAGE_DAYS
from dpdau.activity.runs import Rows, Table, find, part_slice
from dpdau.activity.sealing import Sealer
from dpdau.activity.segments import SegmentFiles, decode
from dpdau.activity.today import live_group
from dpdau.activity.upkeep import TABLES
from dpdau.domain import Tombstone
from dpdau.errors import IntegrityError

_CHUNK_BYTES: Final = 8 << 20
_EVERY_DAY: Final = np.uint64(2**PAGE_DAYS - 1)
_PAGE_SIZE_AT: Final = 16
_FREE_LIST_AT: Final = 32


@dataclass(frozen=True, slots=True)
class Kept:
    """The tombstones of one open plan: how many pseudonyms count as nobody in it."""

    tombstone: Tombstone
    pseudonyms: int


@dataclass(slots=True)
class Findings:
    """What was found in a store.

    Attributes:
        files: How many files hold rows, the manifest among them.
        rows: How many rows they hold, before the final merge.
        problems: What contradicts itself, in words; none in a sound store.
        receipts: The ids of the erasures that were done in it.
        kept: The tombstones, by plan.
        rows_found: Place and table of each row of the names that were searched for, without
            tombstones.
        tombstones_found: (file, index of a name) → tombstones of it there.
        plans_found: The plans that these tombstones are kept for.
    """

    files: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    receipts: frozenset[str] = frozenset()
    kept: tuple[Kept, ...] = ()
    rows_found: list[str] = field(default_factory=list)
    tombstones_found: Counter[tuple[str, int]] = field(default_factory=Counter)
    plans_found: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The rows of one group in one place."""

    place: str
    table: Table
    group: int
    rows: Rows


def inspect(root: Path, *, store_key: bytes | None, names: Sequence[int] = ()) -> Findings:
    """Reads a whole store, decrypted where it is encrypted; the caller keeps writers away.

    Args:
        root: The folder of the store.
        store_key: Its key, or None.
        names: Pseudonyms to look for.

    Guarantee:
        Without a problem, each file has its checksums or authentication tags, sorted keys and the
        rows that the manifest says; the manifest names exactly the files that are there; what is
        held is held for open months and the live day; and free pages are blank.
    """
    findings, sealer = Findings(), Sealer(store_key)
    try:
        manifest = Manifest(root / MANIFEST, sealer, read_only=True)
        with contextlib.closing(manifest), manifest.reading():
            # What lies in a lake is not here: nothing found here would say nothing.
            manifest.lake.check(None)
            damage = manifest.damage()
            findings.problems += damage
            findings.receipts = manifest.receipts.ids()
            files = SegmentFiles(root / SEGMENTS, sealer, cache_bytes_max=0)
            state = Snapshot.bare(files, manifest)
            _compare_names(files, state, findings)
            pieces = _pieces(manifest, sealer, state, findings)
            _read(pieces, state, np.array(list(names), dtype=np.uint64), findings)
        # In a damaged file the list of free pages may have no end.
        dirty = 0 if damage else dirty_free_pages(root / MANIFEST)
        if dirty:
            findings.problems.append(f"{MANIFEST}: {dirty} free pages are not blank")
    except IntegrityError as error:
        findings.problems.append(error.message)
    except sqlite3.DatabaseError as error:
        findings.problems.append(f"{MANIFEST}: {error}")
    return findings


def needles_of(name: int) -> frozenset[bytes]:
    """The forms in which a pseudonym could be written: binary, decimal and hexadecimal."""
    little, big = name.to_bytes(8, "little"), name.to_bytes(8, "big")
    written = {little.hex(), little.hex().upper(), big.hex(), big.hex().upper(), str(name)}
    return frozenset({little, big} | {one.encode() for one in written})


def occurrences(path: Path, needles: frozenset[bytes]) -> int:
    """How often one of some byte strings occurs in a file."""
    longest = max(map(len, needles), default=1)
    found, tail = 0, b""
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            content = tail + chunk
            # What lies in the tail alone was counted with the chunk before.
            found += sum(content.count(one) - tail.count(one) for one in needles)
            tail = content[1 - longest :] if longest > 1 else b""
    return found


def dirty_free_pages(path: Path) -> int:
    """How many pages that a SQLite file does not use hold anything.

    Source: the SQLite file format, sections 1.3 and 1.5 (header, freelist).
    """
    with path.open("rb") as source:
        header = source.read(100)
        size = int.from_bytes(header[_PAGE_SIZE_AT : _PAGE_SIZE_AT + 2], "big")
        size = 65536 if size == 1 else size
        pages = path.stat().st_size // size
        trunk, dirty = int.from_bytes(header[_FREE_LIST_AT : _FREE_LIST_AT + 4], "big"), 0

        def page(number: int) -> bytes:
            source.seek((number - 1) * size)
            return source.read(size)

        while trunk:
            content = page(trunk)
            leaves = int.from_bytes(content[4:8], "big")
            # Behind the list there are numbers of pages that were on it, and nothing larger.
            rest = np.frombuffer(content[8 + 4 * leaves :], dtype=">u4")
            dirty += bool((rest > pages).any())
            for place in range(8, 8 + 4 * leaves, 4):
                dirty += any(page(int.from_bytes(content[place : place + 4], "big")))
            trunk = int.from_bytes(content[:4], "big")
    return dirty


def _compare_names(files: SegmentFiles, state: Snapshot, findings: Findings) -> None:
    """Finds files that nothing names, and names without a file."""
    named = {ref.file.name for refs in state.segments.values() for ref in refs}
    there = files.names()
    findings.files = 1 + len(named & there)
    findings.problems += [f"{one}: no part of the store" for one in sorted(there - named)]
    findings.problems += [f"{one}: missing" for one in sorted(named - there)]


def _pieces(
    manifest: Manifest, sealer: Sealer, state: Snapshot, findings: Findings
) -> Iterator[_Piece]:
    """All rows of a store, place by place; what cannot be read becomes a problem."""
    tables = {table.kind: table for table in TABLES}
    for (kind, part), refs in sorted(state.segments.items()):
        for ref in refs:
            try:
                yield from _of_file(state.files, tables[kind], ref, part, findings)
            except IntegrityError as error:
                findings.problems.append(error.message)
            except FileNotFoundError:
                continue
    for small in state.pending:
        name = pending_name(small)
        try:
            run = decode(manifest.payload(small), tables[small.kind], sealer.for_file(name), name)
        except IntegrityError as error:
            findings.problems.append(error.message)
            continue
        if sum(map(len, run.values())) != small.rows:
            findings.problems.append(f"{name}: expected {small.rows} rows, found others")
        for group, rows in run.items():
            yield _Piece(MANIFEST, tables[small.kind], group, rows)


def _of_file(
    files: SegmentFiles, table: Table, ref: SegmentRef, part: int, findings: Findings
) -> Iterator[_Piece]:
    """The rows of one file, checked against what the manifest says of it."""
    name, total = ref.file.name, 0
    groups = files.groups(table, name)
    for group in groups:
        rows = files.rows(table, name, group, cached=False)
        assert rows is not None, "a group of the index has rows"
        total += len(rows)
        if part != UNSPLIT and len(rows.take(part_slice(rows.key, part))) != len(rows):
            findings.problems.append(f"{name}: rows of another part")
        yield _Piece(name, table, group, rows)
    said = (ref.file.rows, ref.file.group_min, ref.file.group_max)
    if said != (total, min(groups), max(groups)):
        findings.problems.append(f"{name}: other rows than the manifest says")


def _read(
    pieces: Iterator[_Piece], state: Snapshot, names: NDArray[np.uint64], findings: Findings
) -> None:
    """Checks all rows, counts the tombstones, and looks for the names."""
    owners = _owners(state.months, state.live)
    planned = {group for month in state.months for group in plan_groups(month.month)}
    erased: dict[Tombstone, set[int]] = {one: set() for one in set(owners.values())}
    for piece in pieces:
        key, of = piece.rows.key, f"{piece.place}: {piece.table.kind}"
        findings.rows += len(key)
        if not (key[1:] > key[:-1]).all():
            findings.problems.append(f"{of}: keys that are not in order")
        is_plan = piece.table is LABELS and piece.group >= plan_groups(0).start
        if is_plan and piece.group not in planned:
            findings.problems.append(f"{of}: labels of a month that is not open")
        graves = np.zeros(len(key), dtype=np.bool_)
        if piece.table is HELD:
            graves = (piece.rows.values[0] == 0) & (piece.rows.values[1] == _EVERY_DAY)
            owner = owners.get(piece.group)
            if owner is None:
                findings.problems.append(f"{of}: rows of a month or day that is not open")
                graves[:] = False
            else:
                erased[owner].update(key[graves].tolist())
        for index, name in enumerate(names.tolist()):
            at, hit = find(key, np.array([name], dtype=np.uint64))
            if not hit.any():
                continue
            if graves[at[0]]:
                findings.tombstones_found[piece.place, index] += 1
                findings.plans_found.add(owners[piece.group].kept_for)
            else:
                findings.rows_found.append(of)
    findings.kept = tuple(
        Kept(one, len(erased[one])) for one in sorted(erased, key=lambda one: one.kept_for)
    )


def _owners(months: Sequence[PlanMonth], live: int | None) -> Mapping[int, Tombstone]:
    """For which plan the held rows of a group are kept."""
    owners = {group: kept_of([one], None)[0] for one in months for group in one.groups()}
    if live is not None:
        owners[live_group(live)] = kept_of([], live)[0]
    return owners
