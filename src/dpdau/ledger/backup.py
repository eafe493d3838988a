"""Copies of the ledger: taken while it is in use, and brought back without forgetting anything."""

import json
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from sqlalchemy import Connection, select

from dpdau.errors import InvalidSettingError, LedgerCorruptError, LedgerUnavailableError
from dpdau.ledger import schema
from dpdau.ledger.audit import AuditReport, verify
from dpdau.ledger.chain import Head, hash_at, read_head
from dpdau.ledger.copying import copy_into
from dpdau.ledger.engine import Database
from dpdau.ledger.mark import HighWaterMark, Mark
from dpdau.ledger.places import ledger_path, make_private_folder
from dpdau.ledger.steps import LIVE, MONTH
from dpdau.ledger.tables import audit, plans, releases

_SIDE_FILES: Final = ("-wal", "-shm")
_FINDINGS_SHOWN: Final = 5
_WAIT_SECONDS: Final = 30.0


def backup_ledger(database: Database, target: Path) -> Head:
    """Writes a consistent copy of an open ledger into a file, which appears whole or not at all.

    A ledger on a server becomes a file too: the same chain, row by row, and verified.

    Returns:
        The entry that the copy ends with.

    Raises:
        InvalidSettingError: The target exists.
        LedgerUnavailableError: The target cannot be written.
    """
    _refuse_existing(target)
    temporary = target.with_name(target.name + ".tmp")
    _create_private(temporary)

    def unit(connection: Connection) -> Head:
        # The first read pins the snapshot that the copy is then made of.
        head = read_head(connection)
        if database.path is None:
            _copy_rows(connection, temporary)
        with closing(sqlite3.connect(temporary)) as copy:
            if database.path is not None:
                source = cast("sqlite3.Connection", connection.connection.driver_connection)
                source.backup(copy)
            # In one file, so that whoever reads the copy leaves nothing beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        return head

    try:
        head = database.run("backup", unit, write=False)
        _publish(temporary, target)
    finally:
        _remove(temporary)
    return head


def _copy_rows(connection: Connection, temporary: Path) -> None:
    """Copies a snapshot of a ledger on a server into an empty file."""
    target = Database(f"sqlite:///{temporary}", busy_timeout_seconds=_WAIT_SECONDS)
    try:
        copy_into(connection, target)
    finally:
        target.close()


def restore_ledger(
    source: Path, *, url: str, mark_path: Path, busy_timeout_seconds: float
) -> AuditReport:
    """Puts a backup in the place of the ledger, which nobody may have open.

    Guarantee: the copy is verified first, and it holds the entry of the high-water mark, so a
    restore never refunds. Where neither a ledger nor a mark is left, the backup's last entry
    becomes the mark.

    Raises:
        LedgerCorruptError: The backup is not sound, or it is older than the mark.
        InvalidSettingError: There is no backup at the source, or there is a ledger without a mark.
    """
    _require_file(source)
    target = ledger_path(url)
    mark = HighWaterMark(mark_path, timeout_seconds=busy_timeout_seconds)
    temporary = target.with_name(target.name + ".restore")
    with mark.hold():
        found = mark.read()
        if found is None and target.exists():
            raise InvalidSettingError(
                f"Expected a high-water mark beside the ledger at {target}, found none: nothing "
                "shows which is newer. Move that ledger away, then restore."
            )
        try:
            _copy(source, temporary)
            report = _verified(temporary, found, busy_timeout_seconds=busy_timeout_seconds)
            # The mark goes first: a crash in between asks for this same backup again.
            mark.move(Mark(report.ledger_id, report.entries, report.head_hash))
            for suffix in _SIDE_FILES:
                _remove(target.with_name(target.name + suffix))
            _publish(temporary, target)
        finally:
            _remove_with_sides(temporary)
    return report


def verify_backup(source: Path, *, mark_path: Path, busy_timeout_seconds: float) -> AuditReport:
    """Checks what `restore_ledger` would check, on a copy beside the mark; changes nothing else.

    Raises: as `restore_ledger`.
    """
    _require_file(source)
    found = HighWaterMark(mark_path, timeout_seconds=busy_timeout_seconds).read()
    temporary = mark_path.with_name("ledger.verify")
    try:
        _copy(source, temporary)
        return _verified(temporary, found, busy_timeout_seconds=busy_timeout_seconds)
    finally:
        _remove_with_sides(temporary)


@dataclass(frozen=True, slots=True)
class Since:
    """What a ledger has on top of a copy of it.

    Attributes:
        entries: How many entries more; below 0 where the copy has more.
        erasures: The erasures that it has on record, but for those that a restore before the copy
            undid and named.
        plans: The plans of a month or a live counter that released a number after the copy.
    """

    entries: int
    erasures: tuple[str, ...]
    plans: frozenset[str]


def audit_copy(source: Path, scratch: Path) -> tuple[AuditReport, tuple[str, ...]]:
    """Audits a copy by itself, whatever came after it; changes nothing but a scratch file.

    Returns:
        What was seen, and the ids of the erasures on record in it, as in `since_copy`.

    Raises:
        LedgerCorruptError: The copy is not sound.
        InvalidSettingError: There is no copy at the source.
    """
    _require_file(source)
    try:
        _copy(source, scratch)
        report = _verified(scratch, None, busy_timeout_seconds=_WAIT_SECONDS)
        return report, since_copy(f"sqlite:///{scratch}", report).erasures
    finally:
        _remove_with_sides(scratch)


def since_copy(url: str, copy: AuditReport) -> Since:
    """What a ledger has on top of a copy of it.

    Raises:
        LedgerCorruptError: It is no copy of this ledger: it does not hold the copy's last entry.
    """

    def unit(connection: Connection) -> Since:
        more = read_head(connection).seq - copy.entries
        if more >= 0 and hash_at(connection, copy.entries) != copy.head_hash:
            raise LedgerCorruptError(
                "Expected a backup of the ledger that is here, found one of another history.",
                ledger_id=copy.ledger_id,
            )
        stepped = connection.execute(
            select(releases.c.plan_id)
            .join_from(releases, plans, releases.c.plan_id == plans.c.plan_id)
            .where(releases.c.seq > copy.entries, plans.c.kind.in_((MONTH, LIVE)))
        )
        return Since(
            more, _erasures(connection, through=copy.entries), frozenset(stepped.scalars())
        )

    database = Database(url, busy_timeout_seconds=_WAIT_SECONDS)
    try:
        return database.run("since_copy", unit, write=False)
    finally:
        database.close()


def _erasures(connection: Connection, *, through: int) -> tuple[str, ...]:
    """The erasures on record, but for those that a restore undid and named up to an entry."""
    found: dict[str, None] = {}
    rows = connection.execute(
        select(audit.c.seq, audit.c.action, audit.c.facts)
        .where(audit.c.action.in_(("erase", "activity_restored")))
        .order_by(audit.c.seq)
    )
    for seq, action, text in rows:
        facts = json.loads(text)
        if action == "erase":
            found[str(facts["erasure_id"])] = None
        elif seq <= through:
            for undone in facts["erasures_since"]:
                found.pop(undone, None)
    return tuple(found)


def _require_file(source: Path) -> None:
    if not source.is_file():
        raise InvalidSettingError(f"Expected a backup of the ledger, found no file at {source}.")


def _copy(source: Path, temporary: Path) -> None:
    """Copies a database into a new private file."""
    _create_private(temporary)
    try:
        with closing(sqlite3.connect(source)) as good, closing(sqlite3.connect(temporary)) as made:
            good.backup(made)
    except sqlite3.DatabaseError as error:
        raise LedgerCorruptError(
            f"Expected a backup of the ledger at {source}, found a file that the database "
            f"cannot read: {error}."
        ) from error


def _remove_with_sides(path: Path) -> None:
    for suffix in ("", *_SIDE_FILES):
        _remove(path.with_name(path.name + suffix))


def _verified(copy: Path, mark: Mark | None, *, busy_timeout_seconds: float) -> AuditReport:
    """Audits a copy, brought to the newest tables; against its own head where there is no mark."""
    database = Database(f"sqlite:///{copy}", busy_timeout_seconds=busy_timeout_seconds)
    try:
        revision = database.run("restore_schema", schema.current_revision, write=False)
        if revision is None:
            raise LedgerCorruptError("Expected a backup of the ledger, found an empty database.")
        if revision != schema.REVISIONS[-1]:
            database.run("restore_migrate", schema.upgrade)
        report = database.run(
            "restore_verify",
            lambda connection: verify(connection, mark or _own_mark(connection)),
            write=False,
        )
    finally:
        database.close()
    if not report.ok:
        shown = " ".join(one.message for one in report.findings[:_FINDINGS_SHOWN])
        raise LedgerCorruptError(
            f"Expected a sound backup that is no older than the ledger was, found: {shown}",
            findings=[one.code for one in report.findings],
        )
    return report


def _own_mark(connection: Connection) -> Mark:
    """The mark that a copy would have if it were the newest."""
    head = read_head(connection)
    ledger_id = connection.exec_driver_sql("SELECT ledger_id FROM identity").scalar_one_or_none()
    return Mark(str(ledger_id), head.seq, head.hash)


def _refuse_existing(target: Path) -> None:
    """A backup never replaces a file."""
    if target.exists():
        raise InvalidSettingError(f"Expected a new file for the backup, found {target}.")


def _create_private(path: Path) -> None:
    """Makes an empty file, 0600; whatever an earlier crash left there goes."""
    _remove(path)
    try:
        make_private_folder(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise _unwritable(error, path) from error


def _publish(temporary: Path, target: Path) -> None:
    """Gives a finished copy its name, durably."""
    try:
        for path in (temporary, temporary.parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                if path is temporary:
                    temporary.replace(target)
            finally:
                os.close(handle)
    except OSError as error:
        raise _unwritable(error, target) from error


def _unwritable(error: OSError, path: Path) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"Expected to write a copy of the ledger, found {error.strerror}.", path=str(path)
    )


def _remove(path: Path) -> None:
    """Removes a file that may not be there."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
