"""A mark beside the manifest: a lost manifest is no new store."""

import os
from pathlib import Path
from typing import Final

_MARKER: Final = "store.made"


def was_made(root: Path) -> bool:
    """Whether a manifest was ever complete in a folder; a lost one is no new store."""
    return (root / _MARKER).exists()


def mark_made(root: Path) -> None:
    """Writes down once, durably, that the manifest of a folder is complete."""
    if was_made(root):
        return
    for path, flags in ((root / _MARKER, os.O_WRONLY | os.O_CREAT), (root, os.O_RDONLY)):
        handle = os.open(path, flags, 0o600)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
