"""User ids and event ids to keyed 64-bit hashes."""

import collections
import contextlib
import datetime as dt
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from dpdau.errors import (
    InvalidEventError,
)
from dpdau.pseudonym.epochs import EpochKey

if TYPE_CHECKING:
    import pyarrow as pa

# One `person` for each use of a key keeps the uses independent.
_PERSON_USER: Final = b"dau-v1"
_PERSON_EVENT: Final = b"dau-event-v1"
_PERSON_BATCH: Final = b"dau-batch-v1"
_HASH_BLOCK: Final = 1_024


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
        first_day: The first day of which an event may be named: for a day before it, the user may
            have rows under a key that is destroyed.

    Source: BLAKE2, RFC 7693, keyed mode; `person` is the personalization of its parameter block.
    """

    def __init__(self, keys: Sequence[EpochKey], *, first_day: dt.date = dt.date.min) -> None:
        assert keys, "a keyring always has a live key"
        self.first_day: Final = first_day
        self.epoch_ids: Final = tuple(one.epoch_id for one in keys)
        self._users = tuple(_hasher(one.key, _PERSON_USER) for one in keys)
        self._events = _hasher(keys[0].key, _PERSON_EVENT)
        self._batches = tuple(
            hashlib.blake2b(key=one.key, digest_size=16, person=_PERSON_BATCH) for one in keys
        )

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
        self, user_ids: "Sequence[str] | list[bytes] | pa.Array"
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The pseudonyms of many users.

        Args:
            user_ids: Strings, of which each distinct one is hashed once; or distinct ids, as a list
                of bytes or as an Arrow array of strings or binary without nulls.

        Returns:
            Pseudonyms (n,) under the newest key, and aliases (k, n) under the k older live keys,
            newest first.

        Raises:
            InvalidEventError: An id has no UTF-8 form.
        """
        distinct, rows = _contents(user_ids)
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
        that was sent before a rotation is not recognized after it.

        Raises:
            InvalidEventError: An id has no UTF-8 form.
        """
        contents = _encoded(ids) if isinstance(ids, Sequence) else _arrow_bytes(ids)
        owners = np.ascontiguousarray(pseudonym).tobytes()
        assert len(owners) == 8 * len(contents)
        owned = [owners[8 * place : 8 * place + 8] + one for place, one in enumerate(contents)]
        return np.maximum(_hash_all(self._events, owned), np.uint64(1))

    def batch_ids(self, sent: str) -> tuple[str, ...]:
        """The keyed hashes of a sender's batch id under every live key, newest first.

        Guarantee: without the key a hash, 32 hexadecimal digits, tells nothing of the id, which may
        be made of a user id. A batch that was sent before a rotation is recognized after it.
        """
        content = sent.encode("utf-8", "surrogatepass")
        found = []
        for hasher in self._batches:
            one = hasher.copy()
            one.update(content)
            found.append(one.hexdigest())
        return tuple(found)


def _hasher(key: bytes, person: bytes) -> "hashlib.blake2b":
    """A keyed 64-bit hash to be copied for each value: the key block is compressed once."""
    return hashlib.blake2b(key=key, digest_size=8, person=person)


def _hash_all(hasher: "hashlib.blake2b", values: Sequence[bytes]) -> NDArray[np.uint64]:
    """The keyed hash of each value, (n,) uint64; a block at a time, which stays in the cache."""
    kind = type(hasher)
    copy, update, digest = kind.copy, kind.update, kind.digest
    joined = []
    for start in range(0, len(values), _HASH_BLOCK):
        block = values[start : start + _HASH_BLOCK]
        hashers = list(map(copy, itertools.repeat(hasher, len(block))))
        collections.deque(map(update, hashers, block), maxlen=0)
        joined.append(b"".join(map(digest, hashers)))
    return np.frombuffer(b"".join(joined), dtype="<u8").astype(np.uint64, copy=False)


def _contents(
    ids: "Sequence[str] | list[bytes] | pa.Array",
) -> tuple[list[bytes], NDArray[np.intp] | None]:
    """What is to be hashed, and for each row its place among it (None: as it stands)."""
    if not isinstance(ids, Sequence):
        return _arrow_bytes(ids), None
    if ids and isinstance(ids[0], bytes):
        return cast(list[bytes], ids), None
    return _distinct(cast(Sequence[str], ids))


def _distinct(ids: Sequence[str]) -> tuple[list[bytes], NDArray[np.intp] | None]:
    """The distinct ids as bytes, and for each row its place among them (None: all distinct)."""
    places = {one: place for place, one in enumerate(dict.fromkeys(ids))}
    content = _encoded(places)
    if len(content) == len(ids):
        return content, None
    return content, np.fromiter(map(places.__getitem__, ids), dtype=np.intp, count=len(ids))


def _arrow_bytes(values: Any) -> list[bytes]:
    """The values of a string or binary array as bytes."""
    assert values.null_count == 0, "rows without a value are rejected first"
    contents: list[bytes] = values.cast("large_binary").to_pylist()
    return contents


def _encoded(ids: Iterable[str]) -> list[bytes]:
    """The UTF-8 forms of ids; the error does not carry the id, as a UnicodeEncodeError would."""
    with contextlib.suppress(UnicodeEncodeError):
        return [one.encode() for one in ids]
    raise InvalidEventError("Expected a user id in UTF-8, found a lone surrogate.")
