"""The hash chain: every append-only row becomes an entry in the transaction that writes it."""

import datetime as dt
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from dpdau.ledger.canonical import canonical_json, instant_text
from dpdau.ledger.tables import KINDS, entries

GENESIS_HASH: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of the chain: its number and its hash; 0 and zeros before the first."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One link, without its hash: what the hash is over."""

    prev_hash: str
    seq: int
    kind: str
    ref: str
    digest: str
    at: str

    def hash(self) -> str:
        """SHA-256(prev_hash ‖ seq ‖ kind ‖ ref ‖ digest ‖ at), as hex.

        Each part is preceded by its length, so no two entries share an input. `at` is the instant
        of the entry, in the chain too so that it cannot be moved.
        """
        state = hashlib.sha256()
        texts = (self.prev_hash, str(self.seq), self.kind, self.ref, self.digest, self.at)
        for text in texts:
            part = text.encode()
            state.update(struct.pack(">Q", len(part)) + part)
        return state.hexdigest()


def row_digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a typed row, all columns by name, as hex."""
    return hashlib.sha256(canonical_json(dict(row))).hexdigest()


def read_head(connection: Connection) -> Head:
    """The head that this transaction sees."""
    statement = select(entries.c.seq, entries.c.hash).order_by(entries.c.seq.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    return Head(0, GENESIS_HASH) if row is None else Head(row.seq, row.hash)


def hash_at(connection: Connection, seq: int) -> str | None:
    """The hash of an entry, or None where the chain is shorter."""
    statement = select(entries.c.hash).where(entries.c.seq == seq)
    found: str | None = connection.execute(statement).scalar_one_or_none()
    return found


class Chain:
    """The writing end of the chain for one transaction, which must hold the write lock.

    Guarantee: a row and its entry are inserted together; entries are numbered without a gap.
    """

    def __init__(self, connection: Connection, *, at: dt.datetime) -> None:
        self.connection = connection
        self.at = instant_text(at)
        self.head = read_head(connection)

    def append(self, kind: str, values: Mapping[str, Any]) -> int:
        """Inserts one row of a kind, with its entry.

        Returns:
            The entry's number, which is also the row's `seq`.
        """
        seq = self.head.seq + 1
        of = KINDS[kind]
        row = {"seq": seq, **values}
        assert row.keys() == set(of.table.c.keys()), "a chained row states every column"
        entry = Entry(
            prev_hash=self.head.hash,
            seq=seq,
            kind=kind,
            ref=of.ref(row),
            digest=row_digest(row),
            at=self.at,
        )
        hashed = entry.hash()
        link = {
            "seq": entry.seq,
            "kind": entry.kind,
            "ref": entry.ref,
            "digest": entry.digest,
            "prev_hash": entry.prev_hash,
            "hash": hashed,
            "at": entry.at,
        }
        self.connection.execute(insert(entries), link)
        self.connection.execute(insert(of.table), row)
        self.head = Head(seq, hashed)
        return seq
