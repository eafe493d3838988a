"""The keyring file: epochs of pseudonym keys, and the lifetimes of the keys."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import hmac
import itertools
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from dpdau.domain import WINDOW_DAYS_MAX, Clock
from dpdau.errors import (
    InvalidSettingError,
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
)
from dpdau.pseudonym import key_file
from dpdau.pseudonym.epochs import Epoch, EpochKey, Overlap, last_day_before
from dpdau.pseudonym.secret import check_secret

EPOCHS_MAX: Final = 1024
"""Epochs in one file. At most 130 of them are live, where the key changes every day and a day waits
31 days for its events; of the destroyed ones, the oldest are dropped first."""
KEYRING_VERSION: Final = 2
SALT_BYTES: Final = 32
FIRST_EFFECTIVE_DAY: Final = dt.date(1970, 1, 1)

# One `person` for each use of a key keeps the uses independent.
_PERSON_EPOCH: Final = b"dpdau-epoch1"
_PERSON_STORE: Final = b"dpdau-store1"
_PERSON_FINGERPRINT: Final = b"dpdau-fprint1"
_PERSON_FILE: Final = b"dpdau-ring1"
_PERSON_SOURCE: Final = b"dpdau-source1"


class Keyring:
    """The epochs of one data directory, with the secret that turns their salts into keys.

    A keyring is a value: what changes it gives a new one, and `save` puts that in the file.

    Args:
        secret: The bytes of `HASH_SALT_SECRET`, 32 to 64 of them.
        epochs: At least one, with increasing ids and effective days that do not decrease; those
            that are destroyed come first, and at most one, the last, is only planned.
        in_use: The id of the newest epoch that was ever used; the last one by default. The clock
            has no say in it: once used, an epoch stays the newest.
        store_salt: The salt of the key of an encrypted activity store, or None.
        dropped_through: The last day that rows under destroyed keys can hold which are not listed
            any more, or None.

    Raises:
        InvalidSettingError: The secret is too short, too long or an obvious placeholder.
    """

    def __init__(
        self,
        secret: bytes,
        epochs: Sequence[Epoch],
        *,
        in_use: int | None = None,
        store_salt: bytes | None = None,
        dropped_through: dt.date | None = None,
    ) -> None:
        check_secret(secret)
        self._secret = secret
        self._store_salt = store_salt
        self._dropped_through = dropped_through
        self.epochs: Final = tuple(epochs)
        self.in_use: Final = epochs[-1].epoch_id if in_use is None else in_use
        assert _are_sound(self.epochs, self.in_use)

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
        epoch = Epoch(1, clock(), FIRST_EFFECTIVE_DAY, secrets.token_bytes(SALT_BYTES))
        salt = secrets.token_bytes(SALT_BYTES) if encrypt_store else None
        made = cls(secret, (epoch,), store_salt=salt)
        key_file.write_first(root, made.encode())
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
        keyring = cls.decode(key_file.read(root), secret)
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
        return (root / key_file.KEYRING_FILE).exists()

    @property
    def newest(self) -> Epoch:
        """The epoch under which rows are written now."""
        return next(one for one in self.epochs if one.epoch_id == self.in_use)

    @property
    def used(self) -> Sequence[Epoch]:
        """The epochs that named users, oldest first: all but one that is only planned."""
        return self.epochs if self.planned is None else self.epochs[:-1]

    @property
    def planned(self) -> Epoch | None:
        """The epoch that comes next, if one was made ahead of time."""
        last = self.epochs[-1]
        return last if last.epoch_id > self.in_use else None

    @property
    def first_day(self) -> dt.date:
        """The first day of which an event may be taken: the newest cut-off of a destroyed key.

        An event for a day before it may be of a user whose rows lie under a name that nobody can
        compute any more, and would count that user a second time.
        """
        return max((one.cutoff for one in self.epochs if one.cutoff), default=dt.date.min)

    def live(self) -> tuple[EpochKey, ...]:
        """The keys under which a user may have rows, newest first.

        Guarantee: never empty, and the newest is never older than one that was given out before,
        whatever the clock did since. An epoch that is only planned names nobody.
        """
        return tuple(
            EpochKey(one.epoch_id, _derive(self._secret, one.salt, _PERSON_EPOCH))
            for one in reversed(self.used)
            if one.salt is not None
        )

    def splits(self, first: dt.date, last: dt.date) -> bool:
        """Whether one user may have rows on days first..last under two names that nobody can tie.

        It follows from the days on which keys were made and destroyed, never from activity.
        """
        through = self._dropped_through
        if through is not None and first <= through and (last - first).days >= WINDOW_DAYS_MAX:
            # Which keys those were is forgotten; each of them has such a gap at least.
            return True
        return any(
            older.cutoff is not None and first <= last_day_before(newer) and last >= older.cutoff
            for older, newer in itertools.pairwise(self.epochs)
        )

    def aged_out(self, rotation_days: int) -> dt.date:
        """The day on which the newest key is due to be replaced by its age."""
        return self.newest.since + dt.timedelta(days=self.newest.rotation_days or rotation_days)

    def rotation_day(self, rotation_days: int) -> dt.date:
        """The day on which the newest key is to be replaced: by plan, or by its age."""
        return self.planned.effective if self.planned else self.aged_out(rotation_days)

    def rotated(
        self, effective: dt.date, *, created_at: dt.datetime, rotation_days: int | None = None
    ) -> Self:
        """With a planned epoch, in place of one that was planned before and named nobody."""
        assert effective >= self.newest.effective
        salt = secrets.token_bytes(SALT_BYTES)
        epoch = Epoch(self.in_use + 1, created_at, effective, salt, rotation_days)
        return self._with([*self.used, epoch])

    def activated(self, today: dt.date) -> Self:
        """With the planned epoch in use from today on, if its day has come; else as it is."""
        planned = self.planned
        if planned is None or planned.effective > today:
            return self
        used = dataclasses.replace(planned, effective=today)
        return self._with([*self.epochs[:-1], used], in_use=used.epoch_id)

    def destroyed(self, today: dt.date, overlap: Overlap) -> Self:
        """Without the salts of the keys whose overlap is over today."""
        epochs = list(self.epochs)
        for place, (older, newer) in enumerate(itertools.pairwise(self.epochs)):
            if newer.epoch_id > self.in_use or today < overlap.ends(newer):
                break
            if older.salt is not None:
                epochs[place] = dataclasses.replace(
                    older, salt=None, cutoff=max(overlap.cutoff(newer), self.first_day)
                )
        through, dropped = self._dropped_through, len(epochs) - EPOCHS_MAX // 2
        if dropped > 0 and epochs[dropped].salt is None:
            through, epochs = last_day_before(epochs[dropped]), epochs[dropped:]
        return self if tuple(epochs) == self.epochs else self._with(epochs, through=through)

    def store_key(self) -> bytes | None:
        """The 32-byte key of the encrypted activity store, or None where it is not encrypted."""
        if self._store_salt is None:
            return None
        return _derive(self._secret, self._store_salt, _PERSON_STORE)

    def source_name(self, text: str) -> str:
        """The keyed hash under which progress is stored that has no pseudonym; any epoch's is it.

        Guarantee: without the secret it tells nothing of the text.
        """
        return hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"),
            key=self._secret,
            person=_PERSON_SOURCE,
            digest_size=16,
        ).hexdigest()

    def save(self, root: Path) -> None:
        """Puts this keyring in the place of the one under a folder; the caller owns the directory.

        Guarantee: durable when it returns. Whenever the process dies, the file is the old one or
        the new one, whole. The bytes of the old file, and of drafts that a crash left, are
        overwritten where they lie before they are given up.

        Raises:
            StoreUnavailableError: The folder cannot be written.
        """
        key_file.replace(root, self.encode())

    def encode(self) -> bytes:
        """The bytes of the keyring file: salts, a fingerprint of the secret, and a keyed checksum.

        Guarantee: they hold neither the secret nor a key.
        """
        record = _KeyringRecord(
            version=KEYRING_VERSION,
            fingerprint=_fingerprint(self._secret),
            in_use=self.in_use,
            epochs=[_EpochRecord(*dataclasses.astuple(one)) for one in self.epochs],
            store_salt=self._store_salt,
            dropped_through=self._dropped_through,
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
        if isinstance(record, _FirstRecord):
            return cls(secret, [_epoch(one) for one in record.epochs], store_salt=record.store_salt)
        return cls(
            secret,
            [_epoch(one) for one in record.epochs],
            in_use=record.in_use,
            store_salt=record.store_salt,
            dropped_through=record.dropped_through,
        )

    def _with(
        self,
        epochs: Sequence[Epoch],
        *,
        in_use: int | None = None,
        through: dt.date | None = None,
    ) -> Self:
        """The same keyring with other epochs."""
        return type(self)(
            self._secret,
            epochs,
            in_use=self.in_use if in_use is None else in_use,
            store_salt=self._store_salt,
            dropped_through=through or self._dropped_through,
        )


def _are_sound(epochs: Sequence[Epoch], in_use: int) -> bool:
    """Whether a list of epochs is what `Keyring` takes."""
    destroyed = [one.salt is None for one in epochs]
    return (
        1 <= len(epochs) <= EPOCHS_MAX
        and all(
            older.epoch_id < newer.epoch_id and older.effective <= newer.effective
            for older, newer in itertools.pairwise(epochs)
        )
        and destroyed == sorted(destroyed, reverse=True)
        and all((one.salt is None) == (one.cutoff is not None) for one in epochs)
        and any(one.epoch_id == in_use and one.salt is not None for one in epochs[-2:])
    )


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


class _FirstEpochRecord(_Hidden):
    """One epoch in a file of version 1."""

    epoch_id: int
    created_at: dt.datetime
    effective: dt.date
    salt: bytes


class _EpochRecord(_Hidden):
    """One epoch in the file."""

    epoch_id: int
    created_at: dt.datetime
    effective: dt.date
    salt: bytes | None
    rotation_days: int | None
    cutoff: dt.date | None


class _FirstRecord(_Hidden):
    """A file of version 1, which knew epochs that are in use and no others."""

    version: int
    fingerprint: bytes
    epochs: list[_FirstEpochRecord]
    store_salt: bytes | None = None
    checksum: bytes = b""


class _KeyringRecord(_Hidden):
    """The file."""

    version: int
    fingerprint: bytes
    in_use: int
    epochs: list[_EpochRecord]
    store_salt: bytes | None
    dropped_through: dt.date | None
    checksum: bytes = b""


def _epoch(record: _FirstEpochRecord | _EpochRecord) -> Epoch:
    """The epoch of a record."""
    return Epoch(*msgspec.structs.astuple(record))


def _checksum(secret: bytes, record: _FirstRecord | _KeyringRecord) -> bytes:
    """A keyed hash of all but the checksum: one flipped bit of a salt would rename every user."""
    content = msgspec.json.encode(msgspec.structs.replace(record, checksum=b""))
    return hashlib.blake2b(content, key=secret, person=_PERSON_FILE, digest_size=16).digest()


def _parse(content: bytes) -> _FirstRecord | _KeyringRecord:
    """The record in a keyring file; the error does not carry the content."""
    record: _FirstRecord | _KeyringRecord | None = None
    version = KEYRING_VERSION
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        version = int(msgspec.json.decode(content, type=dict[str, Any]).get("version", 0))
        if version == KEYRING_VERSION:
            record = msgspec.json.decode(content, type=_KeyringRecord)
        else:
            record = msgspec.json.decode(content, type=_FirstRecord)
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
