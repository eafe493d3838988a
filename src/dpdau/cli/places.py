"""Whether what is written to a folder outlives the machine's next stop."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""How the system spells spaces, tabs, line ends and backslashes; all else stands as it is."""
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_OF_CONTAINER: Final = frozenset({"overlay", "aufs"})


@dataclass(frozen=True, slots=True)
class Kept:
    """Whether a folder lasts, in words for its owner."""

    lasts: bool
    words: str


def lasting(folder: Path, mounts: Path = _MOUNTS) -> Kept:
    """Whether a folder is on a disk, in memory, or in a container's own layer.

    Where the system does not tell, it is taken for a disk.
    """
    kind = _file_system(folder.resolve(), mounts)
    if kind in _IN_MEMORY:
        return Kept(lasts=False, words="in memory: gone when this machine stops")
    if kind in _OF_CONTAINER:
        return Kept(lasts=False, words="in the container's own layer: gone with the container")
    return Kept(lasts=True, words="kept between runs")


def _file_system(folder: Path, mounts: Path) -> str | None:
    """The kind of the file system that a folder is on."""
    try:
        lines = mounts.read_text("utf-8").splitlines()
    except OSError:
        return None
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        place, _, rest = line.partition(" - ")
        at = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), place.split()[4])
        if folder.is_relative_to(at) and len(at) >= found[0]:
            found = (len(at), rest.split()[0])
    return found[1]
