"""Segment files: complete, private, checked on read."""

import stat
import zlib
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity.labels import LABELS
from dpdau.activity.masks import MASKS, adding, removing
from dpdau.activity.runs import Rows, is_constant
from dpdau.activity.sealing import Sealer
from dpdau.activity.segments import SegmentFiles, decode, encode
from dpdau.errors import SchemaVersionError, StoreCorruptError

KEY = bytes(range(32))
KEYS = np.array([3, 5, 2**64 - 1], dtype=np.uint64)
DAYS = np.array([1, 0, 2**63], dtype=np.uint64)
BLOCKS = [(-1, adding(KEYS, DAYS)), (7, removing(KEYS[:2], DAYS[:2]))]


def files(folder: Path, key: bytes | None = None, cache: int = 1 << 20) -> SegmentFiles:
    """A folder of segments."""
    return SegmentFiles(folder / "segments", Sealer(key), cache)


def same(left: Rows | None, right: Rows) -> bool:
    """Whether rows hold the same values."""
    return left is not None and all(
        one.tolist() == other.tolist()
        for one, other in zip((left.key, *left.values), (right.key, *right.values), strict=True)
    )


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_rows_come_back(tmp_path: Path, key: bytes | None) -> None:
    """Every group reads as it was written, in this process and in another."""
    written = files(tmp_path, key).write(MASKS, BLOCKS)
    assert written is not None
    again = files(tmp_path, key)

    assert (5, -1, 7) == (written.rows, written.group_min, written.group_max)
    assert all(same(again.rows(MASKS, written.name, group), rows) for group, rows in BLOCKS)
    assert all(same(again.run(MASKS, written.name)[group], rows) for group, rows in BLOCKS)
    assert again.rows(MASKS, written.name, 0) is None
    assert written.size == (tmp_path / "segments" / written.name).stat().st_size


def test_an_all_zero_column_is_not_written(tmp_path: Path) -> None:
    """A group without removals has no remove block, and reads as zeros without memory."""
    store = files(tmp_path)
    written = store.write(MASKS, BLOCKS)
    assert written is not None
    found = store.rows(MASKS, written.name, -1)

    assert {"key", "add"} == set(store.groups(MASKS, written.name)[-1].blocks)
    assert {"key", "remove"} == set(store.groups(MASKS, written.name)[7].blocks)
    assert found is not None
    assert is_constant(found.values[1])


def test_nothing_to_write_leaves_no_file(tmp_path: Path) -> None:
    """Empty groups are skipped; a file without rows is not kept."""
    store = files(tmp_path)

    assert store.write(MASKS, [(1, adding(KEYS[:0], DAYS[:0]))]) is None
    assert set() == store.names()


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    """When the rows cannot be made, the unfinished file goes."""
    store = files(tmp_path)

    def broken():
        yield BLOCKS[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write(MASKS, broken())
    assert set() == store.names()


def test_files_are_private(tmp_path: Path) -> None:
    """Files are 0600 in a folder of 0700."""
    written = files(tmp_path).write(MASKS, BLOCKS)
    assert written is not None
    folder = tmp_path / "segments"

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert 0o600 == stat.S_IMODE((folder / written.name).stat().st_mode)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_every_flipped_byte_is_found(tmp_path: Path, key: bytes | None) -> None:
    """A changed byte anywhere in a file is an error that names the file."""
    written = files(tmp_path, key).write(MASKS, BLOCKS)
    assert written is not None
    path = tmp_path / "segments" / written.name
    whole = path.read_bytes()

    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(StoreCorruptError) as caught:
            files(tmp_path, key).run(MASKS, written.name)
        assert written.name == caught.value.facts["file"]
    for size in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreCorruptError):
            files(tmp_path, key).run(MASKS, written.name)


def test_a_file_does_not_stand_in_for_another(tmp_path: Path) -> None:
    """Under a key, a file under another's name does not open; nor does one of another table."""
    store = files(tmp_path, KEY)
    one, other = store.write(MASKS, BLOCKS), store.write(MASKS, BLOCKS)
    assert one is not None
    assert other is not None
    (tmp_path / "segments" / one.name).rename(tmp_path / "segments" / other.name)

    with pytest.raises(StoreCorruptError):
        files(tmp_path, KEY).run(MASKS, other.name)
    plain = files(tmp_path)
    masks = plain.write(MASKS, BLOCKS)
    assert masks is not None
    with pytest.raises(StoreCorruptError):
        plain.groups(LABELS, masks.name)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not guessed at."""
    store = files(tmp_path)
    written = store.write(MASKS, BLOCKS)
    assert written is not None
    path = tmp_path / "segments" / written.name
    head = path.read_bytes()[:8] + (2).to_bytes(4, "little")
    path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + path.read_bytes()[16:])

    with pytest.raises(SchemaVersionError):
        store.groups(MASKS, written.name)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    """A name without a file is told apart from damage."""
    with pytest.raises(FileNotFoundError):
        files(tmp_path).groups(MASKS, "none.seg")


def test_removed_files_leave_the_cache(tmp_path: Path) -> None:
    """After a removal neither file nor cached rows remain."""
    store = files(tmp_path)
    written = store.write(MASKS, BLOCKS)
    assert written is not None
    store.rows(MASKS, written.name, -1)
    store.remove([written.name])

    assert set() == store.names()
    with pytest.raises(FileNotFoundError):
        store.rows(MASKS, written.name, -1)


def test_cached_rows_are_not_read_again(tmp_path: Path) -> None:
    """A second question is answered from memory, past the file."""
    store = files(tmp_path)
    written = store.write(MASKS, BLOCKS)
    assert written is not None
    store.rows(MASKS, written.name, -1)
    (tmp_path / "segments" / written.name).unlink()

    assert same(store.rows(MASKS, written.name, -1), BLOCKS[0][1])


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_payload_has_the_bytes_of_a_file(key: bytes | None) -> None:
    """What is encoded to memory decodes to the same rows."""
    payload = bytearray()
    sealer = Sealer(key).for_file("name")
    encode(payload.extend, MASKS, BLOCKS, sealer)
    run = decode(bytes(payload), MASKS, sealer, "name")

    assert all(same(run[group], rows) for group, rows in BLOCKS)
