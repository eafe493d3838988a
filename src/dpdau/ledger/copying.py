"""A ledger from one database into another, row by row: the same chain, and the same identity."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, select

from dpdau.errors import InvalidSettingError, LedgerConflictError, LedgerCorruptError
from dpdau.ledger import schema
from dpdau.ledger.audit import AuditReport, verify
from dpdau.ledger.chain import read_head
from dpdau.ledger.engine import Database
from dpdau.ledger.mark import Mark
from dpdau.ledger.tables import KINDS, entries, identity

ROWS: Final = 1_000
_FINDINGS_SHOWN: Final = 5

Moved = Callable[[int, int], None]
"""Hears how many rows of how many were copied."""


def copy_into(
    source: Connection, target: Database, *, moved: Moved = lambda _done, _all: None
) -> AuditReport:
    """Copies what a transaction sees of one ledger into a database without tables.

    Guarantee: one transaction, so the target holds a verified copy or stays as it was. The copy is
    audited by its own rows, and has to end with the hash of the source's last link, which stands
    for every row before it: so a row that got lost or changed, on the way or in the source before,
    is found. Sums that only guard (`balances`) are made anew by the next charge; when
    a key was last used is not taken along.

    Returns:
        The audit of the copy.

    Raises:
        InvalidSettingError: The target has a ledger.
        LedgerConflictError: Somebody wrote to the source meanwhile, past its lock.
        LedgerCorruptError: The target has foreign tables, or the copy is not sound.
    """
    head = read_head(source)
    ledger_id = source.execute(select(identity.c.ledger_id)).scalar_one_or_none()
    mark = Mark(str(ledger_id), head.seq, head.hash)

    def unit(connection: Connection) -> AuditReport:
        require_empty(connection)
        schema.upgrade(connection)
        done = 0
        for table in (entries, *(kind.table for kind in KINDS.values())):
            ordered = select(table).order_by(table.c["seq"])
            rows = source.execute(ordered.execution_options(yield_per=ROWS)).mappings()
            for part in rows.partitions():
                connection.execute(insert(table), [dict(row) for row in part])
                done += len(part)
                # Each link has its row.
                moved(done, 2 * head.seq)
        report = verify(connection, mark)
        if not report.ok:
            shown = " ".join(one.message for one in report.findings[:_FINDINGS_SHOWN])
            raise LedgerCorruptError(
                f"Expected a copy that is the same ledger, found: {shown} Nothing was copied.",
                findings=[one.code for one in report.findings],
            )
        # Where the source's lock was lost, or passed by, what came since is not in the copy.
        if read_head(source) != head:
            raise LedgerConflictError(
                "Expected a ledger that nobody writes to while it is copied, found new entries. "
                "Stop every service on it first; nothing was copied."
            )
        return report

    return target.run("copy_in", unit, schema=True)


@contextmanager
def new_target(target: Database) -> Iterator[None]:
    """Makes the file of a copy and closes it; where the copy fails, the file is removed.

    Guarantee: only who made the file writes to it and removes it, however many copy to it at once.

    Raises:
        InvalidSettingError: The file is there.
    """
    target.create_new_file()
    try:
        yield
    except BaseException:
        target.close()
        if target.path is not None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{target.path}{suffix}").unlink(missing_ok=True)
        raise
    target.close()


def require_empty(connection: Connection) -> None:
    """Refuses a database that holds a ledger.

    Raises:
        InvalidSettingError: It does.
        LedgerCorruptError: It holds something else.
    """
    if schema.current_revision(connection) is not None:
        raise InvalidSettingError(
            "Expected an empty database to copy the ledger into, found one that has a ledger."
        )
