"""What a change of the store leaves behind in its folder, and how it goes."""

import contextlib

from dpdau.activity.manifest import Manifest
from dpdau.activity.segments import SegmentFiles
from dpdau.errors import StoreUnavailableError


def recover(manifest: Manifest, files: SegmentFiles) -> None:
    """What a new writer does first: ends what a crash cut short; it holds the writer's lock.

    Guarantee:
        Every file is one that the manifest names. The erasures whose replaced rows a crash left
        are finished too, unless a reader keeps the log; then their receipts say so.
    """
    remove_orphans(manifest, files)
    if manifest.receipts.outstanding():
        with contextlib.suppress(StoreUnavailableError):
            clear(manifest, files)


def clear(manifest: Manifest, files: SegmentFiles) -> None:
    """Removes every byte of rows that were replaced; the caller holds the writer's lock.

    Guarantee:
        When it returns, the rows of the manifest and of the files that it names are the only rows
        under the folder, and the receipts of all erasures say so.

    Raises:
        StoreUnavailableError: A reader kept the write-ahead log from being emptied; retry.
    """
    remove_orphans(manifest, files)
    # A power cut must not bring a file back behind a receipt that says that it is gone.
    files.sync()
    manifest.truncate_log()
    if manifest.receipts.outstanding():
        with manifest.writing():
            manifest.receipts.mark_cleared()


def remove_orphans(manifest: Manifest, files: SegmentFiles) -> None:
    """Deletes files that the manifest does not name; the caller holds the writer's lock."""
    files.remove(files.names() - {ref.file.name for ref in manifest.segments()})
