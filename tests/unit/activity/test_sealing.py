"""Sealed blocks open only where they were put."""

import pytest

from dpdau.activity.sealing import Sealer
from dpdau.errors import InvalidSettingError, StoreCorruptError

KEY = bytes(range(32))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_block_opens_to_its_data(key: bytes | None) -> None:
    """What was sealed comes back, also when empty."""
    sealer = Sealer(key).for_file("a")

    for data in (b"", b"data" * 100):
        assert data == bytes(sealer.open(sealer.seal(data, "b"), "b"))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_every_changed_byte_is_found(key: bytes | None) -> None:
    """A flipped bit anywhere, or a missing end, does not open."""
    sealer = Sealer(key).for_file("a")
    sealed = sealer.seal(b"some data", "b")
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]

    for one in [*changed, sealed[:-1], b""]:
        with pytest.raises(StoreCorruptError) as caught:
            sealer.open(one, "b")
        assert "a" == caught.value.facts["file"]


def test_a_block_does_not_open_elsewhere() -> None:
    """Under a key, a block of another file or place, or under another key, does not open."""
    sealed = Sealer(KEY).for_file("a").seal(b"data", "b")

    for sealer, block in (
        (Sealer(KEY).for_file("other"), "b"),
        (Sealer(KEY).for_file("a"), "other"),
        (Sealer(bytes(32)).for_file("a"), "b"),
    ):
        with pytest.raises(StoreCorruptError):
            sealer.open(sealed, block)


def test_sealing_twice_differs() -> None:
    """Under a key equal data does not look equal, and the data is not in it."""
    sealer = Sealer(KEY).for_file("a")
    sealed = [sealer.seal(b"some plain data", "b") for _ in range(2)]

    assert sealed[0] != sealed[1]
    assert b"plain" not in sealed[0]


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_store_key_has_32_bytes(size: int) -> None:
    """Other sizes are refused without showing the key."""
    with pytest.raises(InvalidSettingError, match="32 bytes"):
        Sealer(bytes(size))
