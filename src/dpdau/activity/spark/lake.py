"""The lake: a folder of Parquet files that this process and every executor of Spark see.

```text
lake/
├── lake.made         the id of the one manifest whose lake it is
├── tmp/              what is being written; nothing here counts
├── days/*.parquet    who was active, and who is no more, commit by commit
├── labels/*.parquet  segment labels, and the labels that open months keep
└── seen/*.parquet    event ids
```

Which of the files count is in the manifest alone. A file is never changed: it is finished under
`tmp`, moved to its place, and named in the manifest afterwards.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dpdau.activity.lake_table import LakeFile
from dpdau.errors import InvalidSettingError, StoreCorruptError, StoreUnavailableError

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_MADE: Final = "lake.made"
_TMP: Final = "tmp"
_NAME_BYTES: Final = 12
_SUFFIX: Final = ".parquet"
_ID: Final = re.compile(r"[0-9a-f]{24}")
_SIGNS: Final = "%[]{}*?\\#"
"""What Hadoop or Sail take for something else in the name of a file."""
UNSPLIT: Final = -1
"""The part of a file with keys of several parts."""
PART_BITS: Final = 4


@dataclass(frozen=True, slots=True)
class TableKind:
    """A kind of rows: (group, key, …, commit), each at most once in one commit.

    Attributes:
        kind: Its name, and that of its folder.
        columns: Its columns with the types of Spark and of Arrow.
    """

    kind: str
    columns: Mapping[str, tuple[str, pa.DataType]]

    @property
    def schema(self) -> str:
        """The columns as Spark reads them."""
        return ", ".join(f"`{name}` {type_}" for name, (type_, _arrow) in self.columns.items())

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns as Arrow writes them."""
        return pa.schema([(name, arrow) for name, (_type, arrow) in self.columns.items()])


_INT: Final = ("INT", pa.int32())
_BIGINT: Final = ("BIGINT", pa.int64())
_BOOLEAN: Final = ("BOOLEAN", pa.bool_())
TRUTH: Final = 0
"""The group of the days that are true now; an open month keeps its own under its month index."""
GRAVE: Final = -(2**31)
"""The day under which an open month keeps that a pseudonym was erased."""
DAYS: Final = TableKind(
    "days", {"group": _INT, "key": _BIGINT, "day": _INT, "add": _BOOLEAN, "commit": _BIGINT}
)
LABELS: Final = TableKind(
    "labels", {"group": _INT, "key": _BIGINT, "code": _INT, "commit": _BIGINT}
)
SEEN: Final = TableKind("seen", {"group": _INT, "key": _BIGINT, "commit": _BIGINT})
KINDS: Final = (DAYS, LABELS, SEEN)


class Lake:
    """The files of one lake; nothing here asks Spark.

    Args:
        folder: Where it is; made with mode 0700 when missing, unless `read_only`.
        read_only: Never write; the lake must exist.

    Raises:
        InvalidSettingError: Spark would take its name for another one.
        StoreUnavailableError: It cannot be opened, or there is none.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.folder: Final = folder.resolve()
        uri_of(self.folder)
        try:
            if not read_only:
                for one in (
                    self.folder,
                    *(self.folder / one.kind for one in KINDS),
                    self.folder / _TMP,
                ):
                    one.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self.names()
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected a lake in {folder}, found: {error.strerror}."
            ) from None

    def uri(self, file: LakeFile) -> str:
        """Where Spark finds a file."""
        return uri_of(self.folder / file.name)

    @property
    def id(self) -> str:
        """The id of the manifest whose lake it is; empty where it is nobody's yet.

        Raises:
            StoreCorruptError: It is no id.
        """
        try:
            found = (self.folder / _MADE).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        if not _ID.fullmatch(found):
            raise StoreCorruptError(
                f"Expected the id of a lake in {self.folder / _MADE}, found something else."
                " Restore it from a backup; nothing was changed.",
                file=_MADE,
            )
        return found

    def claim(self, lake: str) -> None:
        """Makes it the lake of the manifest with an id, unless it is another one's already."""
        made, draft = self.folder / _MADE, self.folder / _TMP / secrets.token_hex(_NAME_BYTES)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        try:
            os.write(descriptor, lake.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Of two that come at once one is first, and nobody ever sees a half of an id.
        with contextlib.suppress(FileExistsError):
            os.link(draft, made)
        draft.unlink()
        _sync(self.folder)

    def names(self) -> set[str]:
        """The names of all files, whether they count or not."""
        return {
            f"{one.kind}/{path.name}"
            for one in KINDS
            for path in (self.folder / one.kind).iterdir()
        }

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """The name of a folder to write to; what is left of it afterwards is deleted."""
        stage = self.folder / _TMP / secrets.token_hex(_NAME_BYTES)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def stages(self) -> list[str]:
        """What is being written, or was left by a job that was killed."""
        return sorted(f"{_TMP}/{one.name}" for one in (self.folder / _TMP).iterdir())

    def write(self, kind: TableKind, table: pa.Table) -> list[LakeFile]:
        """Writes the rows of one commit as one file; none where there is no row."""
        with self.staging() as stage:
            stage.mkdir(mode=_FOLDER_MODE)
            rows = table.cast(kind.arrow_schema)
            pq.write_table(rows, stage / f"0{_SUFFIX}", compression="zstd")
            return self.take(kind, stage, rows=table.num_rows)

    def take(self, kind: TableKind, stage: Path, *, rows: int) -> list[LakeFile]:
        """Moves the files of a finished stage to their place, durably; none without a row.

        The rows of each file belong to one commit.

        Raises:
            StoreUnavailableError: They are not the rows that were written; nothing was moved.
        """
        taken = []
        for path, metadata in staged(stage, rows=rows):
            name = f"{kind.kind}/{secrets.token_hex(_NAME_BYTES)}{_SUFFIX}"
            file = _described(name, kind, metadata, path.stat().st_size)
            path.chmod(_FILE_MODE)
            _sync(path)
            path.rename(self.folder / name)
            taken.append(file)
        if taken:
            _sync(self.folder / kind.kind)
        return taken

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files that nothing refers to."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Makes durable that the files that were deleted are gone, and what was being written.

        Raises:
            StoreUnavailableError: Something of it cannot be deleted; retry.
        """
        stages = self.folder / _TMP
        try:
            for stage in stages.iterdir():
                shutil.rmtree(stage) if stage.is_dir() else stage.unlink()
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected to delete what a job left in {stages}, found: {error.strerror}; retry."
            ) from None
        for folder in (stages, *(self.folder / one.kind for one in KINDS)):
            _sync(folder)

    def damaged(self, files: Iterable[LakeFile]) -> list[str]:
        """The names of the files that are gone, or have another size.

        Sail takes a file that is gone for an empty one, so this is asked after each job.
        """
        return [one.name for one in files if _size(self.folder / one.name) != one.size]

    def bytes_on_disk(self) -> int:
        """The bytes of all files that may count."""
        paths = [self.folder / one for one in self.names()]
        return sum(size for path in paths if (size := _size(path)) is not None)


def uri_of(path: Path) -> str:
    """What a file or folder is called to Spark.

    Hadoop takes `%20` in it as it stands, so nothing is written that way.

    Raises:
        InvalidSettingError: A sign in it means something to Spark.
    """
    if set(_SIGNS) & set(str(path)):
        raise InvalidSettingError(
            f"Expected a LAKE_DIR and a DATA_DIR without any of {' '.join(_SIGNS)}, which mean"
            f" something to Spark, found {path}.",
            setting="LAKE_DIR",
        )
    return f"file://{path}"


def staged(stage: Path, *, rows: int) -> list[tuple[Path, pq.FileMetaData]]:
    """The files with rows of a stage that is finished, as they are seen here.

    Args:
        stage: The folder.
        rows: How many were written, by whoever wrote them.

    Raises:
        StoreUnavailableError: Others are there: whoever wrote them does not share the folder, or a
            file is damaged.
    """
    found: list[tuple[Path, pq.FileMetaData]] = []
    why = ""
    try:
        paths = [one for one in sorted(stage.rglob(f"*{_SUFFIX}")) if not _is_draft(one, stage)]
        found = [(one, pq.read_metadata(one)) for one in paths]
    except (pa.ArrowException, OSError) as error:
        why = f"the error {type(error).__name__}"
    there = sum(metadata.num_rows for _, metadata in found)
    if why or there != rows:
        raise StoreUnavailableError(
            f"Expected to see in {stage.parent} what Spark wrote there, found"
            f" {why or 'other rows'}. Every executor has to share LAKE_DIR with this machine."
        )
    return [(path, metadata) for path, metadata in found if metadata.num_rows]


def _is_draft(path: Path, stage: Path) -> bool:
    """Whether a file is of an attempt, which may even go on."""
    return any(part.startswith(("_", ".")) for part in path.relative_to(stage).parts)


def part_of(key: int) -> int:
    """Which part a key is in: its highest bits."""
    return (key % 2**64) >> (64 - PART_BITS)


def _described(name: str, kind: TableKind, metadata: pq.FileMetaData, size: int) -> LakeFile:
    """What the manifest keeps of a file."""
    bounds = {column: _bounds(metadata, index) for index, column in enumerate(kind.columns)}
    first, last = bounds["commit"]
    assert first == last, "a file holds one commit"
    parts = {part_of(key) for key in bounds["key"]}
    days = bounds.get("day", (None, None))
    return LakeFile(
        name=name,
        kind=kind.kind,
        seq=first,
        part=parts.pop() if len(parts) == 1 else UNSPLIT,
        rows=metadata.num_rows,
        size=size,
        group_min=bounds["group"][0],
        group_max=bounds["group"][1],
        day_min=days[0],
        day_max=days[1],
    )


def _bounds(metadata: pq.FileMetaData, column: int) -> tuple[int, int]:
    """The least and the greatest value of a column that has no NULL."""
    some = [
        metadata.row_group(group).column(column).statistics
        for group in range(metadata.num_row_groups)
    ]
    assert all(one is not None and one.has_min_max for one in some), "every writer keeps bounds"
    return min(one.min for one in some), max(one.max for one in some)


def _size(path: Path) -> int | None:
    """The bytes of a file, or None where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
