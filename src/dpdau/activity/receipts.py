"""The receipts of erasures, as the manifest keeps them: what was done, and never to whom."""

import datetime as dt
import json
import sqlite3
from typing import Final

from dpdau.domain import ErasureReceipt, Tombstone

RECEIPTS_VERSION: Final = 4
"""The schema of the manifest in which a receipt first said what is kept, and until when."""
RECEIPTS_SCHEMA: Final = """
ALTER TABLE erasures ADD COLUMN keys_searched INTEGER;
ALTER TABLE erasures ADD COLUMN tombstones TEXT;
ALTER TABLE erasures ADD COLUMN version TEXT;
ALTER TABLE erasures ADD COLUMN files_cleared INTEGER NOT NULL DEFAULT 0;
"""


class ReceiptTable:
    """The receipts of a manifest, over its connection; an older file knows less of each."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, receipt: ErasureReceipt) -> None:
        """Stores a receipt, in the transaction of its erasure."""
        tombstones = None
        if receipt.tombstones is not None:
            tombstones = json.dumps([one.to_json() for one in receipt.tombstones])
        self._db.execute(
            "INSERT INTO erasures (erasure_id, days_touched, done_at, keys_searched, tombstones,"
            " version, files_cleared) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                receipt.erasure_id,
                receipt.days_touched,
                receipt.done_at.isoformat(),
                receipt.keys_searched,
                tombstones,
                receipt.version,
                receipt.files_cleared,
            ),
        )

    def find(self, erasure_id: str) -> ErasureReceipt | None:
        """A receipt, or None."""
        row = self._db.execute(
            "SELECT * FROM erasures WHERE erasure_id = ?", (erasure_id,)
        ).fetchone()
        return None if row is None else _receipt(*row)

    def ids(self) -> frozenset[str]:
        """The ids of all erasures that were done here."""
        return frozenset(str(row[0]) for row in self._db.execute("SELECT erasure_id FROM erasures"))

    def outstanding(self) -> int:
        """Of how many erasures a replaced row may be left in a file that counts no more."""
        if not self._is_current():
            return 0
        found = self._db.execute("SELECT count(*) FROM erasures WHERE NOT files_cleared")
        return int(found.fetchone()[0])

    def mark_cleared(self) -> None:
        """Notes that no file holds a row that any of the erasures took out."""
        self._db.execute("UPDATE erasures SET files_cleared = 1 WHERE NOT files_cleared")

    def _is_current(self) -> bool:
        """Whether the file has all columns; the writer may add them while others read."""
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        return version >= RECEIPTS_VERSION


def _receipt(
    erasure_id: str,
    days_touched: int,
    done_at: str,
    keys_searched: int | None = None,
    tombstones: str | None = None,
    version: str | None = None,
    files_cleared: int = 0,
) -> ErasureReceipt:
    """A row of `erasures`; an older file has the first three columns."""
    return ErasureReceipt(
        erasure_id=erasure_id,
        days_touched=days_touched,
        done_at=dt.datetime.fromisoformat(done_at),
        keys_searched=keys_searched,
        tombstones=(
            None
            if tombstones is None
            else tuple(Tombstone.from_json(one) for one in json.loads(tombstones))
        ),
        version=version,
        files_cleared=bool(files_cleared),
    )
