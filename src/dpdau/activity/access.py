"""The doors of the embedded store: its folder of segment files, and what is read from it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from dpdau.activity.change import StoreLimits
from dpdau.activity.doors import MANIFEST, Doors, translated
from dpdau.activity.history import History, Snapshot
from dpdau.activity.leftovers import recover
from dpdau.activity.manifest import Manifest
from dpdau.activity.runs import Table
from dpdau.activity.sealing import Sealer
from dpdau.activity.segments import SegmentFiles
from dpdau.activity.upkeep import Upkeep
from dpdau.errors import StoreUnavailableError

__all__ = ["MANIFEST", "SEGMENTS", "StoreAccess"]

SEGMENTS: Final = "segments"
_READ_ATTEMPTS: Final = 10

_Answer = TypeVar("_Answer")


class StoreAccess(Doors[Upkeep]):
    """One writer at a time, any number of readers, all errors the store's own.

    Args and Raises are those of `EmbeddedStore`.
    """

    def __init__(
        self, root: Path, *, store_key: bytes | None, read_only: bool, limits: StoreLimits
    ) -> None:
        sealer = Sealer(store_key)
        self._limits = limits
        self.files: Final = SegmentFiles(root / SEGMENTS, sealer, limits.cache_bytes_max)
        super().__init__(
            root,
            sealer=sealer,
            read_only=read_only,
            lock_wait_seconds=limits.lock_wait_seconds,
        )
        with translated():
            self._snapshots = self._manifest(read_only=True)
        self._history = History(self._snapshots, self.files, sealer)

    def read(self, tables: Sequence[Table], question: Callable[[Snapshot], _Answer]) -> _Answer:
        """Answers from one snapshot; takes another one where a merge replaced a file meanwhile."""
        with translated():
            for _ in range(_READ_ATTEMPTS):
                self._check_open()
                try:
                    return question(self._history.snapshot(tables))
                except FileNotFoundError as gone:
                    if self._history.names(Path(gone.filename).name):
                        raise
        raise StoreUnavailableError(
            "Expected to read while another process merges, found files replaced too often; retry."
        )

    def _make_writer(self, manifest: Manifest) -> Upkeep:
        """Changes the segment files."""
        return Upkeep(
            manifest,
            history=self._history,
            files=self.files,
            sealer=self._sealer,
            limits=self._limits,
            turn=self._lock,
        )

    def _recover(self, manifest: Manifest) -> None:
        """Ends what a crash cut short; the caller holds the writer's lock."""
        recover(manifest, self.files)

    def _has_data(self) -> bool:
        """Whether there are segment files."""
        return bool(self.files.names())

    def _close_views(self) -> None:
        """Releases what is read."""
        self._snapshots.close()
