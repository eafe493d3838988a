"""Whether a folder lasts, by the kind of its file system."""

from pathlib import Path

import pytest

from dpdau.cli.places import lasting

MOUNTS = """\
22 1 0:20 / / rw,relatime - {root} /dev/sda1 rw
23 22 0:21 / /run rw - tmpfs tmpfs rw
24 22 0:22 / /run/my\\040disk rw shared:1 - ext4 /dev/sdb1 rw
26 22 0:22 / /run/größe\\x41 rw shared:1 - ext4 /dev/sdb1 rw
25 22 0:22 / /data rw shared:1 master:2 - ext4 /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("folder", "root", "lasts", "said"),
    [
        ("/srv/dpdau", "ext4", True, "kept between runs"),
        ("/srv/dpdau", "overlay", False, "container"),
        ("/data/dpdau", "overlay", True, "kept between runs"),
        ("/database", "overlay", False, "container"),
        ("/run/dpdau", "ext4", False, "in memory"),
        ("/run/my disk/dpdau", "ext4", True, "kept between runs"),
        ("/run/größe\\x41/dpdau", "ext4", True, "kept between runs"),
    ],
)
def test_the_nearest_mount_decides(
    tmp_path: Path, folder: str, root: str, lasts: bool, said: str
) -> None:
    """A disk and a volume last; memory and a container's own layer do not."""
    (tmp_path / "mounts").write_text(MOUNTS.format(root=root))
    kept = lasting(Path(folder), tmp_path / "mounts")

    assert (lasts, True) == (kept.lasts, said in kept.words)


def test_a_system_that_does_not_tell_is_taken_for_a_disk(tmp_path: Path) -> None:
    """Nothing is claimed to be lost where nobody knows."""
    assert lasting(tmp_path, tmp_path / "absent").lasts
