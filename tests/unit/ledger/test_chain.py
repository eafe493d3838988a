"""The hash chain."""

import hashlib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dpdau.ledger.chain import GENESIS_HASH, Chain, Entry, Head, read_head, row_digest
from dpdau.ledger.engine import Database
from dpdau.ledger.schema import upgrade
from simulation.ledger_cases import NOW, raw_rows, url_of

ENTRY = Entry(prev_hash=GENESIS_HASH, seq=1, kind="audit", ref="1", digest="d", at="t")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated database without an identity."""
    one = Database(url_of(tmp_path), busy_timeout_seconds=1)
    one.create_file()
    one.run("migrate", upgrade)
    yield one
    one.close()


def audit_row(chain: Chain, action: str) -> dict[str, str]:
    """A row without a key of its own."""
    return {"at": chain.at, "actor": "ada", "action": action, "facts": "{}"}


def test_hash_is_over_length_prefixed_parts() -> None:
    """The hash can be recomputed by hand from the documented parts."""
    parts = [GENESIS_HASH, "1", "audit", "1", "d", "t"]
    by_hand = b"".join(len(part).to_bytes(8, "big") + part.encode() for part in parts)

    assert hashlib.sha256(by_hand).hexdigest() == ENTRY.hash()


@pytest.mark.parametrize("name", [field.name for field in fields(Entry)])
def test_hash_depends_on_every_part(name: str) -> None:
    """Changing any part of an entry changes its hash."""
    other = replace(ENTRY, **{name: 2 if name == "seq" else "other"})

    assert ENTRY.hash() != other.hash()


def test_parts_cannot_slide_into_each_other() -> None:
    """Moving a character from one part to the next changes the hash."""
    assert replace(ENTRY, kind="ab", ref="c").hash() != replace(ENTRY, kind="a", ref="bc").hash()


def test_digest_depends_on_every_column() -> None:
    """A column's name and its value are both in the digest of a row."""
    rows = [{"a": 1}, {"a": "1"}, {"b": 1}, {"a": 1, "b": None}]

    assert len(rows) == len({row_digest(row) for row in rows})


def test_entries_are_numbered_and_linked(database: Database, tmp_path: Path) -> None:
    """Rows of several transactions make one chain from 1, each entry naming the one before."""
    assert Head(0, GENESIS_HASH) == database.run("head", read_head, write=False)
    for action in ("a", "b"):

        def unit(connection: object, action: str = action) -> Head:
            chain = Chain(connection, at=NOW)  # type: ignore[arg-type]
            chain.append("audit", audit_row(chain, action))
            chain.append("audit", audit_row(chain, action * 2))
            return chain.head

        head = database.run("append", unit)
        assert head == database.run("head", read_head, write=False)

    links = raw_rows(tmp_path, "SELECT seq, ref, prev_hash, hash FROM entries ORDER BY seq")
    assert [(1, "1"), (2, "2"), (3, "3"), (4, "4")] == [link[:2] for link in links]
    assert [GENESIS_HASH, *(link[3] for link in links[:-1])] == [link[2] for link in links]


def test_a_row_states_every_column(database: Database) -> None:
    """A forgotten column is a bug, and not a default."""

    def unit(connection: object) -> None:
        chain = Chain(connection, at=NOW)  # type: ignore[arg-type]
        chain.append("audit", {"actor": "ada"})

    with pytest.raises(AssertionError, match="every column"):
        database.run("append", unit)
