"""A backup as one encrypted file, which shows nothing but its size.

```text
magic, 15 bytes | log2 n, r, p of scrypt, 1 byte each | salt, 32 | check, 32 | sealed chunks
```

The chunks are a tar archive in the STREAM construction: each is AES-256-GCM under a nonce of its
number (11 bytes) and whether it is the last (1 byte), with the header as associated data.
"""

import hmac
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from dpdau.errors import InvalidSettingError, StoreCorruptError

SUFFIX: Final = ".dpdau"
PASSPHRASE_BYTES_MIN: Final = 16
CHUNK_BYTES: Final = 1 << 20
SCRYPT_LOG_N: Final = 17
_MAGIC: Final = b"dpdau-backup-1\n"
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_SCRYPT_MAX: Final = (20, 16, 4)
"""What a header may ask for; beyond it, a forged one would take all memory."""
_SALT_BYTES: Final = 32
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16

Moved = Callable[[int, int], None]
"""(bytes that are sealed, bytes in all) → shown to somebody."""


def is_sealed(source: Path) -> bool:
    """Whether a file is one that `seal` made, whole or not."""
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def seal(
    folder: Path, sink: BinaryIO, passphrase: bytes, *, moved: Moved = lambda _done, _all: None
) -> None:
    """Writes everything in a folder into an empty file, durably.

    Args:
        folder: What to write; regular files and folders.
        sink: The file.
        passphrase: `PASSPHRASE_BYTES_MIN` bytes or more.
        moved: Hears how far it is.

    Guarantee: without the passphrase the file tells its size and nothing else, and no byte of it
    can be changed, moved or cut off without `unseal` refusing it.

    Source: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its
    Nonce-Reuse Misuse-Resistance", 2015, section 7 (STREAM); nonces as in the payload of age. The
    key is of one file alone, as the salt is random.
    """
    total = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    writer = _Writer(sink, passphrase)
    with tarfile.open(fileobj=writer, mode="w|", bufsize=CHUNK_BYTES) as archive:  # type: ignore[call-overload]
        done = 0
        for path in sorted(folder.rglob("*")):
            about = tarfile.TarInfo(path.relative_to(folder).as_posix())
            if path.is_dir():
                about.type = tarfile.DIRTYPE
                archive.addfile(about)
                continue
            about.size = path.stat().st_size
            with path.open("rb") as source:
                archive.addfile(about, source)
            done += about.size
            moved(done, total)
    writer.finish()
    sink.flush()
    os.fsync(sink.fileno())


def unseal(source: Path, folder: Path, passphrase: bytes) -> None:
    """Writes what a sealed file holds into an empty folder, privately.

    Guarantee: what was changed or cut off is found before it is used: the folder is whole once this
    returns.

    Raises:
        InvalidSettingError: It was sealed under another passphrase.
        StoreCorruptError: It was changed or cut short.
    """
    with source.open("rb") as file:
        reader = _Reader.of(file, passphrase, source)
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK_BYTES) as archive:  # type: ignore[call-overload]
                for member in archive:
                    _extract(archive, member, folder)
            # What follows the archive's end is sealed too: a cut there is a cut.
            while reader.read(CHUNK_BYTES):
                pass
        except (tarfile.TarError, InvalidTag):
            raise StoreCorruptError(
                f"Expected the whole backup {source}, found one that was changed or cut short. "
                "Take another copy of it, or an older backup."
            ) from None


def passphrase_from(path: Path) -> bytes:
    """The passphrase in a file, without the end of its line.

    Raises:
        InvalidSettingError: The file cannot be read, or holds less than a passphrase.
    """
    try:
        text = path.read_bytes().strip()
    except OSError as error:
        raise InvalidSettingError(
            f"Expected a passphrase in {path}, found: {error.strerror}."
        ) from None
    if len(text) < PASSPHRASE_BYTES_MIN:
        raise InvalidSettingError(
            f"Expected a passphrase of {PASSPHRASE_BYTES_MIN} bytes or more in {path}, found "
            f"{len(text)}."
        )
    return text


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Writes one file or folder; nothing else is in a backup, and nothing lies outside."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isdir() or member.isreg()):
        raise StoreCorruptError("Expected files and folders in the backup, found something else.")
    path = folder / name
    if member.isdir():
        path.mkdir(mode=0o700)
        return
    content = archive.extractfile(member)
    assert content is not None, "a regular file has a content"
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as sink:
        shutil.copyfileobj(content, sink, CHUNK_BYTES)


def _keys(passphrase: bytes, header: bytes) -> tuple[AESGCM, bytes]:
    """The key of the chunks, and what shows in the header that it is the right one."""
    log_n, r, p = header[len(_MAGIC) : len(_MAGIC) + 3]
    salt = header[len(_MAGIC) + 3 :]
    derived = Scrypt(salt=salt, length=2 * _KEY_BYTES, n=1 << log_n, r=r, p=p).derive(passphrase)
    check = hmac.digest(derived[_KEY_BYTES:], header, "sha256")
    return AESGCM(derived[:_KEY_BYTES]), check


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class _Writer:
    """Seals what is written to it."""

    def __init__(self, sink: BinaryIO, passphrase: bytes) -> None:
        cost = bytes([SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P])
        self._header = _MAGIC + cost + os.urandom(_SALT_BYTES)
        self._sink = sink
        self._key, check = _keys(passphrase, self._header)
        self._held = bytearray()
        self._number = 0
        sink.write(self._header + check)

    def write(self, content: bytes) -> int:
        """Takes bytes; the last chunk is held back until it is known to be the last."""
        self._held += content
        while len(self._held) > CHUNK_BYTES:
            self._put(last=False)
        return len(content)

    def finish(self) -> None:
        """Seals what is left, as the last chunk."""
        self._put(last=True)

    def _put(self, *, last: bool) -> None:
        chunk = bytes(self._held[:CHUNK_BYTES])
        del self._held[:CHUNK_BYTES]
        nonce = _nonce(self._number, last=last)
        self._sink.write(self._key.encrypt(nonce, chunk, self._header))
        self._number += 1


class _Reader:
    """Opens what a `_Writer` sealed, chunk by chunk."""

    def __init__(self, source: BinaryIO, header: bytes, key: AESGCM) -> None:
        self._source = source
        self._header = header
        self._key = key
        self._opened = bytearray()
        self._number = 0
        self._ahead = source.read(CHUNK_BYTES + _TAG_BYTES)
        self._ended = False

    @classmethod
    def of(cls, source: BinaryIO, passphrase: bytes, path: Path) -> Self:
        """A reader of a file from its start.

        Raises:
            InvalidSettingError: The passphrase is another one.
            StoreCorruptError: The start of the file is not that of a backup.
        """
        header = source.read(len(_MAGIC) + 3 + _SALT_BYTES)
        check = source.read(_KEY_BYTES)
        costs = header[len(_MAGIC) : len(_MAGIC) + 3]
        bounded = all(0 < cost <= most for cost, most in zip(costs, _SCRYPT_MAX, strict=False))
        if not header.startswith(_MAGIC) or len(check) < _KEY_BYTES or not bounded:
            raise StoreCorruptError(f"Expected an encrypted backup in {path}, found none.")
        key, expected = _keys(passphrase, header)
        if not hmac.compare_digest(check, expected):
            raise InvalidSettingError(
                f"Expected the passphrase that {path} was encrypted with, found another one."
            )
        return cls(source, header, key)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for at the end alone.

        Raises:
            InvalidTag: The next chunk is not the one that was written.
        """
        while len(self._opened) < size and not self._ended:
            chunk, self._ahead = self._ahead, self._source.read(CHUNK_BYTES + _TAG_BYTES)
            self._ended = not self._ahead
            nonce = _nonce(self._number, last=self._ended)
            self._opened += self._key.decrypt(nonce, chunk, self._header)
            self._number += 1
        found = bytes(self._opened[:size])
        del self._opened[:size]
        return found
