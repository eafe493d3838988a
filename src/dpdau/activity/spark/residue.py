"""Looks at every row of a lake store: whether it is sound, and whether someone is still in it."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dpdau.activity.doors import MANIFEST
from dpdau.activity.held import PlanMonth, kept_of
from dpdau.activity.labels import plan_groups
from dpdau.activity.lake_table import LakeFile
from dpdau.activity.manifest import Manifest
from dpdau.activity.residue import Findings, Kept, dirty_free_pages
from dpdau.activity.sealing import Sealer
from dpdau.activity.spark.lake import DAYS, GRAVE, LABELS, SEEN, TRUTH, Lake
from dpdau.errors import IntegrityError


def inspect(root: Path, *, lake: Path, names: Sequence[int] = ()) -> Findings:
    """Reads a whole store, file by file; the caller keeps writers away. Asks no Spark.

    Args:
        root: The folder of the manifest.
        lake: The folder of the files.
        names: Pseudonyms to look for.

    Guarantee:
        Without a problem, each file can be read and has the rows that the manifest says; the
        manifest names exactly the files that are there, nothing else is there; what is kept for a
        month is kept for an open one; and free pages of the manifest are blank.

    Raises:
        InvalidSettingError: The manifest is not that of this lake.
        StoreUnavailableError: There is no lake.
    """
    findings, files = Findings(), Lake(lake, read_only=True)
    wanted = np.array(list(names), dtype=np.uint64).view(np.int64)
    try:
        manifest = Manifest(root / MANIFEST, Sealer(None), read_only=True)
        with contextlib.closing(manifest), manifest.reading():
            manifest.lake.check(files.id)
            damage = manifest.damage()
            findings.problems += damage
            findings.receipts = manifest.receipts.ids()
            named, there = manifest.lake.names(), files.names()
            findings.files = 1 + len(named & there)
            findings.problems += [f"{one}: no part of the store" for one in sorted(there - named)]
            findings.problems += [f"{one}: missing" for one in sorted(named - there)]
            findings.problems += [f"{one}: left by a job" for one in files.stages()]
            reading = _Reading(files, manifest.open_months(), wanted, findings)
            for one in manifest.lake.files():
                if one.name in there:
                    reading.read(one)
            findings.kept = reading.kept()
        dirty = 0 if damage else dirty_free_pages(root / MANIFEST)
        if dirty:
            findings.problems.append(f"{MANIFEST}: {dirty} free pages are not blank")
    except IntegrityError as error:
        findings.problems.append(error.message)
    except sqlite3.DatabaseError as error:
        findings.problems.append(f"{MANIFEST}: {error}")
    return findings


class _Reading:
    """Reads the files of a lake, and notes what it finds."""

    def __init__(
        self, lake: Lake, months: Sequence[PlanMonth], names: NDArray[np.int64], findings: Findings
    ) -> None:
        self._lake = lake
        self._names = names
        self._findings = findings
        self._owners = {one.month: kept_of([one], None)[0] for one in months}
        self._erased: dict[int, set[int]] = {one: set() for one in self._owners}
        self._groups = {
            DAYS.kind: [TRUTH, *self._owners],
            LABELS.kind: [group for one in self._owners for group in plan_groups(one)],
        }

    def read(self, file: LakeFile) -> None:
        """Checks the rows of one file, counts its graves, and looks for the names."""
        rows = 0
        try:
            source = pq.ParquetFile(self._lake.folder / file.name)
            for number in range(source.num_row_groups):
                rows += self._look(file, source.read_row_group(number))
        except (pa.ArrowException, OSError, KeyError):
            self._findings.problems.append(f"{file.name}: cannot be read")
            return
        self._findings.rows += rows
        if rows != file.rows:
            self._findings.problems.append(f"{file.name}: other rows than the manifest says")

    def kept(self) -> tuple[Kept, ...]:
        """The graves, by month."""
        return tuple(
            Kept(self._owners[one], len(self._erased[one])) for one in sorted(self._owners)
        )

    def _look(self, file: LakeFile, table: pa.Table) -> int:
        """Takes some rows of a file; how many they are."""
        of, problems = f"{file.name}: {file.kind}", self._findings.problems
        columns = {name: table[name].to_numpy() for name in table.column_names}
        group, key = columns["group"], columns["key"]
        known = np.isin(group, self._groups.get(file.kind, []))
        if file.kind == LABELS.kind:
            known |= group < plan_groups(0).start
        if file.kind != SEEN.kind and not known.all():
            problems.append(f"{of}: rows of a month that is not open")
        if not (columns["commit"] == file.seq).all():
            problems.append(f"{of}: rows of another commit")
        graves = np.zeros(len(key), dtype=np.bool_)
        if file.kind == DAYS.kind:
            graves = (columns["day"] == GRAVE) & columns["add"] & known
            for month in np.unique(group[graves]).tolist():
                self._erased[month].update(key[graves & (group == month)].tolist())
        for index, name in enumerate(self._names.tolist() if file.kind != SEEN.kind else ()):
            hit = key == name
            if (hit & ~graves).any():
                self._findings.rows_found.append(of)
            for month in group[hit & graves].tolist():
                self._findings.tombstones_found[file.name, index] += 1
                self._findings.plans_found.add(self._owners[month].kept_for)
        return len(key)
