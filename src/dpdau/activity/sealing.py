"""Seals blocks of the store under its key, or marks them with a checksum when it has none."""

import os
import zlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dpdau.errors import InvalidSettingError, StoreCorruptError

STORE_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CHECKSUM_BYTES: Final = 4


class Sealer:
    """Turns the blocks of one named file into bytes that cannot be changed unnoticed.

    Guarantee:
        With a key, a block is AES-256-GCM under a key derived for the file (HKDF-SHA256 of the
        store key and the file's name), with a random 96-bit nonce and the file, column and block
        number as associated data: a changed, moved or exchanged block does not open. Without a
        key, a CRC-32 finds accidents, not attackers.

    Source:
        NIST SP 800-38D (random nonces: one file key seals far fewer than 2³² blocks); RFC 5869.
    """

    def __init__(self, store_key: bytes | None) -> None:
        if store_key is not None and len(store_key) != STORE_KEY_BYTES:
            raise InvalidSettingError(
                f"Expected a store key of {STORE_KEY_BYTES} bytes, found {len(store_key)} bytes."
            )
        self._store_key = store_key

    @property
    def keyed(self) -> bool:
        """Whether blocks are encrypted."""
        return self._store_key is not None

    def for_file(self, name: str) -> "FileSealer":
        """The sealer of one file."""
        return FileSealer(name, None if self._store_key is None else _derive(self._store_key, name))


class FileSealer:
    """Seals and opens the blocks of one file; see `Sealer`."""

    def __init__(self, name: str, key: bytes | None) -> None:
        self._name = name
        self._cipher = None if key is None else AESGCM(key)

    def seal(self, data: bytes | memoryview, block: str) -> bytes:
        """The bytes to write for a block; `block` names its place in the file."""
        if self._cipher is None:
            return b"".join((data, zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")))
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, self._place(block))

    def open(self, sealed: bytes, block: str) -> bytes | memoryview:
        """The data of a block.

        Raises:
            StoreCorruptError: The checksum or the authentication tag does not match.
        """
        if self._cipher is None:
            data, found = memoryview(sealed)[:-_CHECKSUM_BYTES], sealed[-_CHECKSUM_BYTES:]
            if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") != found:
                raise corrupt(self._name, block)
            return data
        nonce = sealed[:_NONCE_BYTES]
        try:
            return self._cipher.decrypt(nonce, sealed[_NONCE_BYTES:], self._place(block))
        except (InvalidTag, ValueError):
            raise corrupt(self._name, block) from None

    def _place(self, block: str) -> bytes:
        """The associated data: where the block belongs."""
        return f"{self._name}\0{block}".encode()


def corrupt(name: str, block: str) -> StoreCorruptError:
    """The error for a damaged block."""
    return StoreCorruptError(
        f"Expected intact data in {name}, found a damaged block ({block}).", file=name, block=block
    )


def _derive(store_key: bytes, name: str) -> bytes:
    """The key of one file."""
    info = b"dpdau activity file\0" + name.encode()
    return HKDF(algorithm=SHA256(), length=STORE_KEY_BYTES, salt=None, info=info).derive(store_key)
