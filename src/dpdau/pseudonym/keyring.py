"""The keyring file: epochs of pseudonym keys, and the lifetimes of the keys."""

import contextlib
import datetime as dt
import hashlib
import hmac
import itertools
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from dpdau.domain import Clock
from dpdau.errors import (
    InvalidSettingError,
    NotFoundError,
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.pseudonym.secret import check_secret

EPOCHS_MAX: Final = 128
KEYRING_FILE: Final = "keyring.json"
KEYRING_VERSION: Final = 1
SALT_BYTES: Final = 32
FIRST_EFFECTIVE_DAY: Final = dt.date(1970, 1, 1)

# One `person` for each use of a key keeps the uses independent.
_PERSON_EPOCH: Final = b"dpdau-epoch1"
_PERSON_STORE: Final = b"dpdau-store1"
_PERSON_FINGERPRINT: Final = b"dpdau-fprint1"
_PERSON_FILE: Final = b"dpdau-ring1"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One period of pseudonyms: from `effective` on, new rows are written under its key."""

    epoch_id: int
    created_at: dt.datetime
    effective: dt.date
    salt: bytes = field(repr=False)

    @classmethod
    def fresh(cls, epoch_id: int, *, created_at: dt.datetime, effective: dt.date) -> Self:
        """An epoch with a new random salt."""
        return cls(epoch_id, created_at, effective, secrets.token_bytes(SALT_BYTES))


@dataclass(frozen=True, slots=True)
class EpochKey:
    """The derived key of one epoch; its repr does not show it."""

    epoch_id: int
    key: bytes = field(repr=False)


class Keyring:
    """The epochs of one data directory, with the secret that turns their salts into keys.

    Args:
        secret: The bytes of `HASH_SALT_SECRET`, 32 to 64 of them.
        epochs: At least one, with increasing ids and effective days that do not decrease.
        store_salt: The salt of the key of an encrypted activity store, or None.

    Raises:
        InvalidSettingError: The secret is too short, too long or an obvious placeholder.
    """

    def __init__(
        self, secret: bytes, epochs: Sequence[Epoch], *, store_salt: bytes | None = None
    ) -> None:
        check_secret(secret)
        assert 1 <= len(epochs) <= EPOCHS_MAX
        assert all(
            older.epoch_id < newer.epoch_id and older.effective <= newer.effective
            for older, newer in itertools.pairwise(epochs)
        )
        self._secret = secret
        self._store_salt = store_salt
        self.epochs: Final = tuple(epochs)

    def __repr__(self) -> str:
        return f"Keyring(epochs={len(self.epochs)}, keys=<private>)"

    @classmethod
    def create(
        cls, root: Path, secret: bytes, *, clock: Clock, encrypt_store: bool = False
    ) -> Self:
        """Makes the keyring of a new data directory: one epoch, in force from the first day on.

        Guarantee: durable when it returns; when several processes create at once, all of them
        return the keyring of the one that came first.

        Raises:
            InvalidSettingError: The secret is refused, or a keyring without a store key is there
                and `encrypt_store` asks for one.
            SecretMismatchError: A keyring of another secret is there.
            StoreUnavailableError: The folder cannot be written.
        """
        epoch = Epoch.fresh(1, created_at=clock(), effective=FIRST_EFFECTIVE_DAY)
        salt = secrets.token_bytes(SALT_BYTES) if encrypt_store else None
        made = cls(secret, (epoch,), store_salt=salt)
        _write_first(root, made.encode())
        return cls.open(root, secret, encrypt_store=encrypt_store)

    @classmethod
    def open(cls, root: Path, secret: bytes, *, encrypt_store: bool = False) -> Self:
        """Reads the keyring under a folder and proves that the secret belongs to it.

        Raises:
            NotFoundError: There is none.
            InvalidSettingError: The secret is refused, or there is no store key and
                `encrypt_store` asks for one.
            SecretMismatchError: The keyring was made under another secret.
            StoreCorruptError: The file is damaged.
            SchemaVersionError: The file was written by a newer version.
        """
        keyring = cls.decode(_read(root), secret)
        if encrypt_store and keyring._store_salt is None:
            raise InvalidSettingError(
                "Expected a keyring with a store key, found one that was made for a store without"
                " encryption. Encryption is chosen when the data directory is made: turn it off,"
                " or start a new data directory."
            )
        return keyring

    @classmethod
    def open_or_create(
        cls, root: Path, secret: bytes, *, clock: Clock, encrypt_store: bool = False
    ) -> Self:
        """The keyring under a folder; made first where there is none. Raises as both do."""
        if cls.exists(root):
            return cls.open(root, secret, encrypt_store=encrypt_store)
        return cls.create(root, secret, clock=clock, encrypt_store=encrypt_store)

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether a keyring file is under a folder."""
        return (root / KEYRING_FILE).exists()

    def live(self, day: dt.date) -> tuple[EpochKey, ...]:
        """The keys under which a user may have rows on a day of arrival, newest first.

        Guarantee: never empty. An epoch that is not yet in force is left out; each older epoch
        whose salt is still in the keyring is a live key, under which a user is looked for too.
        """
        in_force = [one for one in self.epochs if one.effective <= day] or [self.epochs[0]]
        return tuple(
            EpochKey(one.epoch_id, _derive(self._secret, one.salt, _PERSON_EPOCH))
            for one in reversed(in_force)
        )

    def store_key(self) -> bytes | None:
        """The 32-byte key of the encrypted activity store, or None where it is not encrypted."""
        if self._store_salt is None:
            return None
        return _derive(self._secret, self._store_salt, _PERSON_STORE)

    def encode(self) -> bytes:
        """The bytes of the keyring file: salts, a fingerprint of the secret, and a keyed checksum.

        Guarantee: they hold neither the secret nor a key.
        """
        record = _KeyringRecord(
            version=KEYRING_VERSION,
            fingerprint=_fingerprint(self._secret),
            epochs=[
                _EpochRecord(one.epoch_id, one.created_at, one.effective, one.salt)
                for one in self.epochs
            ],
            store_salt=self._store_salt,
        )
        record.checksum = _checksum(self._secret, record)
        return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"

    @classmethod
    def decode(cls, content: bytes, secret: bytes) -> Self:
        """The inverse of `encode`. Raises as `open` does."""
        check_secret(secret)
        record = _parse(content)
        if not hmac.compare_digest(record.fingerprint, _fingerprint(secret)):
            raise SecretMismatchError(
                "Expected the HASH_SALT_SECRET under which this data directory was made, found"
                " another. Set the old secret again; with a new one every user would be counted as"
                " somebody else. To start over, use a new DATA_DIR."
            )
        if not hmac.compare_digest(record.checksum, _checksum(secret, record)):
            raise StoreCorruptError(
                "Expected a keyring file with a valid checksum, found a damaged one."
                " Restore it from a backup."
            )
        epochs = [
            Epoch(one.epoch_id, one.created_at, one.effective, one.salt) for one in record.epochs
        ]
        return cls(secret, epochs, store_salt=record.store_salt)


def _derive(secret: bytes, salt: bytes, person: bytes) -> bytes:
    """A 32-byte key from the secret and a salt."""
    return hashlib.blake2b(salt, key=secret, person=person, digest_size=32).digest()


def _fingerprint(secret: bytes) -> bytes:
    """What is stored to recognize the secret."""
    return hashlib.blake2b(key=secret, person=_PERSON_FINGERPRINT, digest_size=16).digest()


class _Hidden(msgspec.Struct, forbid_unknown_fields=True):
    """A record of the file, not to be shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<private>)"


class _EpochRecord(_Hidden):
    """One epoch in the file."""

    epoch_id: int
    created_at: dt.datetime
    effective: dt.date
    salt: bytes


class _KeyringRecord(_Hidden):
    """The file."""

    version: int
    fingerprint: bytes
    epochs: list[_EpochRecord]
    store_salt: bytes | None = None
    checksum: bytes = b""


def _checksum(secret: bytes, record: _KeyringRecord) -> bytes:
    """A keyed hash of all but the checksum: one flipped bit of a salt would rename every user."""
    content = msgspec.json.encode(msgspec.structs.replace(record, checksum=b""))
    return hashlib.blake2b(content, key=secret, person=_PERSON_FILE, digest_size=16).digest()


def _parse(content: bytes) -> _KeyringRecord:
    """The record in a keyring file; the error does not carry the content."""
    record: _KeyringRecord | None = None
    version = KEYRING_VERSION
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        version = int(msgspec.json.decode(content, type=dict[str, Any]).get("version", 0))
        record = msgspec.json.decode(content, type=_KeyringRecord)
    if version > KEYRING_VERSION:
        raise SchemaVersionError(
            f"Expected a keyring of version {KEYRING_VERSION} or older, found {version}."
        )
    if record is None or not 1 <= len(record.epochs) <= EPOCHS_MAX:
        raise StoreCorruptError(
            "Expected a keyring file, found something that cannot be read as one."
            " Restore it from a backup."
        )
    return record


def _read(root: Path) -> bytes:
    """The bytes of the keyring file; readable by its owner alone from here on."""
    path = root / KEYRING_FILE
    try:
        content = path.read_bytes()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        raise NotFoundError(f"Expected a keyring at {path}, found none.") from None
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected to read the keyring at {path}, found: {error.strerror}."
        ) from None
    return content


def _write_first(root: Path, content: bytes) -> None:
    """Puts the first keyring in place, durably, unless another process was faster."""
    path = root / KEYRING_FILE
    draft = root / f".{KEYRING_FILE}.{os.getpid()}.{secrets.token_hex(8)}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as it:
                it.write(content)
                it.flush()
                os.fsync(it.fileno())
            # A link, unlike a rename, fails where the name is taken: the first one wins.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        # The one that came second also waits until the name is durable before it uses the keys.
        for folder in (root, root.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected to write a keyring at {path}, found: {error.strerror}."
        ) from None
