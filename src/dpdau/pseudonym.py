"""Maps user ids to keyed pseudonyms and owns the lifetimes of the keys.

A pseudonym is a 64-bit keyed BLAKE2b hash of the user id under the key of an *epoch*. The key of an
epoch is derived from two things that live apart: `HASH_SALT_SECRET`, which comes from the
environment, and the random salt of the epoch, which is in the keyring file under `DATA_DIR`.
Neither alone gives the key, and destroying the salt destroys the key although the secret stays.
"""

import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import hmac
import itertools
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.domain import Clock
from dpdau.errors import (
    InvalidEventError,
    InvalidSettingError,
    NotFoundError,
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
    StoreUnavailableError,
)

__all__ = ["Epoch", "EpochKey", "Keyring", "Pseudonymizer", "parse_secret"]

SECRET_BYTES_MIN: Final = 32
SECRET_BYTES_MAX: Final = hashlib.blake2b.MAX_KEY_SIZE
SECRET_DISTINCT_BYTES_MIN: Final = 8
EPOCHS_MAX: Final = 128
KEYRING_FILE: Final = "keyring.json"
KEYRING_VERSION: Final = 1
SALT_BYTES: Final = 32
FIRST_EFFECTIVE_DAY: Final = dt.date(1970, 1, 1)

_HOW_TO_MAKE_ONE: Final = (
    'Make one with: echo "b64:$(openssl rand -base64 32)", set it as HASH_SALT_SECRET, and keep it.'
)

# One `person` for each use of a key keeps the uses independent.
_PERSON_EPOCH: Final = b"dpdau-epoch1"
_PERSON_STORE: Final = b"dpdau-store1"
_PERSON_FINGERPRINT: Final = b"dpdau-fprint1"
_PERSON_FILE: Final = b"dpdau-ring1"
_PERSON_LONG_SECRET: Final = b"dpdau-long1"
_PERSON_USER: Final = b"dau-v1"
_PERSON_EVENT: Final = b"dau-event-v1"


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
        _check_secret(secret)
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
        _check_secret(secret)
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


class Pseudonymizer:
    """Turns user ids into pseudonyms under every live key.

    Guarantee: a pseudonym is the first 64 bits of a pseudo-random function of the user id (BLAKE2b,
    keyed, `person` "dau-v1"), so without the key it tells nothing about the id and cannot be found
    by trying ids. Among n users the expected number of pairs that share a pseudonym is below
    n² / 2^65: 2.7e-6 for 10 million users, 0.027 for a billion. Two users who share one are counted
    as one, in every count alike, and the removal of one removes both.

    No id is kept, and no repr or exception shows one.

    Args:
        keys: The live keys, newest first; at least one.

    Source: BLAKE2, RFC 7693, keyed mode; `person` is the personalisation of its parameter block.
    """

    def __init__(self, keys: Sequence[EpochKey]) -> None:
        assert keys, "a keyring always has a live key"
        self.epoch_ids: Final = tuple(one.epoch_id for one in keys)
        self._users = tuple(_hasher(one.key, _PERSON_USER) for one in keys)
        self._events = _hasher(keys[0].key, _PERSON_EVENT)

    def __repr__(self) -> str:
        return f"Pseudonymizer(epoch_ids={self.epoch_ids}, keys=<private>)"

    def one(self, user_id: str) -> tuple[int, ...]:
        """The pseudonyms of one user under every live key, newest first.

        Raises:
            InvalidEventError: The id has no UTF-8 form.
        """
        content = _encoded([user_id])
        return tuple(int(_hash_all(hasher, content)[0]) for hasher in self._users)

    def many(
        self, user_ids: "Sequence[str] | pa.Array"
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The pseudonyms of many users; each distinct id is hashed once.

        Args:
            user_ids: Strings, or an Arrow array of strings or binary without nulls.

        Returns:
            Pseudonyms (n,) under the newest key, and aliases (k, n) under the k older live keys,
            newest first.

        Raises:
            InvalidEventError: An id has no UTF-8 form.
        """
        distinct, rows = _distinct(user_ids)
        columns = [_hash_all(hasher, distinct) for hasher in self._users]
        if rows is not None:
            columns = [column[rows] for column in columns]
        n = columns[0].shape[0]
        return columns[0], np.array(columns[1:], dtype=np.uint64).reshape(len(columns) - 1, n)

    def event_ids(
        self, ids: "Sequence[str] | pa.Array", pseudonym: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Keyed hashes of the senders' event ids, (n,); never 0, which stands for no id.

        Args:
            ids: The ids, one for each event.
            pseudonym: (n,) whose event each is, under the newest key.

        Guarantee: an id is one of its user: the same id sent for two users is two ids, so that
        nobody's event can make another's a duplicate. They are under the newest key only: an id
        that was sent before a rotation is not recognised after it.

        Raises:
            InvalidEventError: An id has no UTF-8 form.
        """
        if isinstance(ids, (pa.Array, pa.ChunkedArray)):
            contents = [bytes(one.as_buffer()) for one in ids.cast(pa.large_binary())]
        else:
            contents = _encoded(ids)
        owners = np.ascontiguousarray(pseudonym).tobytes()
        assert len(owners) == 8 * len(contents)
        owned = [owners[8 * place : 8 * place + 8] + one for place, one in enumerate(contents)]
        return np.maximum(_hash_all(self._events, owned), np.uint64(1))


def parse_secret(text: str) -> bytes:
    """Reads `HASH_SALT_SECRET`: `b64:` and the base64 form of 32 or more random bytes.

    Bytes beyond the 64 that a key can have are not cut off: a longer secret is hashed to 64 bytes.

    Raises:
        InvalidSettingError: The text is empty, a placeholder, not base64, or too short; the message
            says how to make one and does not repeat the text.

    Example:
        >>> len(parse_secret("b64:" + "8J+UkSBub3QgYSBzZWNyZXQsIGJ1dCBsb25nIGVub3VnaA=="))
        34
    """
    prefix, _, encoded = text.strip().partition(":")
    secret: bytes | None = None
    standard = encoded.replace("-", "+").replace("_", "/")
    if prefix == "b64":
        # The with block ends before the raise: the error would otherwise carry the text.
        with contextlib.suppress(binascii.Error, ValueError):
            secret = base64.b64decode(standard, validate=True)
    if secret is None:
        raise InvalidSettingError(
            "Expected HASH_SALT_SECRET as b64: and base64 text, found something else."
            f" {_HOW_TO_MAKE_ONE}"
        )
    if len(secret) > SECRET_BYTES_MAX:
        _check_random(secret)
        secret = hashlib.blake2b(secret, person=_PERSON_LONG_SECRET).digest()
    _check_secret(secret)
    return secret


def _check_secret(secret: bytes) -> None:
    """Refuses what cannot be a secret."""
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise InvalidSettingError(
            f"Expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in HASH_SALT_SECRET, found"
            f" {len(secret)}. {_HOW_TO_MAKE_ONE}"
        )
    _check_random(secret)


def _check_random(secret: bytes) -> None:
    """Refuses an obvious placeholder."""
    word = secret.lower()
    placeholder = word.startswith(b"{{") and word.endswith(b"}}")
    if placeholder or b"changeme" in word or len(set(secret)) < SECRET_DISTINCT_BYTES_MIN:
        raise InvalidSettingError(
            f"Expected random bytes in HASH_SALT_SECRET, found a placeholder. {_HOW_TO_MAKE_ONE}"
        )


def _hasher(key: bytes, person: bytes) -> "hashlib.blake2b":
    """A keyed 64-bit hash to be copied for each value: the key block is compressed once."""
    return hashlib.blake2b(key=key, digest_size=8, person=person)


def _hash_all(hasher: "hashlib.blake2b", values: Sequence[bytes]) -> NDArray[np.uint64]:
    """The keyed hash of each value, (n,) uint64."""
    copy = hasher.copy
    digests = []
    for value in values:
        one = copy()
        one.update(value)
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def _distinct(ids: "Sequence[str] | pa.Array") -> tuple[list[bytes], NDArray[np.intp] | None]:
    """The distinct ids as bytes, and for each row its place among them (None: all distinct)."""
    if isinstance(ids, (pa.Array, pa.ChunkedArray)):
        return _distinct_arrow(ids)
    places = {one: place for place, one in enumerate(dict.fromkeys(ids))}
    content = _encoded(places)
    if len(content) == len(ids):
        return content, None
    return content, np.fromiter(map(places.__getitem__, ids), dtype=np.intp, count=len(ids))


def _distinct_arrow(ids: Any) -> tuple[list[bytes], NDArray[np.intp] | None]:
    """`_distinct` for an Arrow array, without a Python string per row."""
    assert ids.null_count == 0, "rows without an id are rejected first"
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    encoded = ids.cast(pa.large_binary()).dictionary_encode()
    content = _arrow_bytes(encoded.dictionary)
    if len(content) == len(ids):
        return content, None
    return content, encoded.indices.to_numpy(zero_copy_only=False).astype(np.intp)


def _arrow_bytes(values: Any) -> list[bytes]:
    """The values of a large-binary array, cut out of its one buffer."""
    _, offsets_buffer, data_buffer = values.buffers()
    if len(values) == 0 or offsets_buffer is None:
        return []
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)
    bounds = offsets[values.offset : values.offset + len(values) + 1].tolist()
    data = b"" if data_buffer is None else data_buffer.to_pybytes()
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def _encoded(ids: Iterable[str]) -> list[bytes]:
    """The UTF-8 forms of ids; the error does not carry the id, as a UnicodeEncodeError would."""
    with contextlib.suppress(UnicodeEncodeError):
        return [one.encode() for one in ids]
    raise InvalidEventError("Expected a user id in UTF-8, found a lone surrogate.")


def _derive(secret: bytes, salt: bytes, person: bytes) -> bytes:
    """A 32-byte key from the secret and a salt."""
    return hashlib.blake2b(salt, key=secret, person=person, digest_size=32).digest()


def _fingerprint(secret: bytes) -> bytes:
    """What is stored to recognise the secret."""
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
