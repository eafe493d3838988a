"""What is done to a ledger as a whole, while nobody uses it: new tables, and backups put back."""

from pathlib import Path

from dpdau.domain import Clock
from dpdau.ledger import backup as backups
from dpdau.ledger import schema
from dpdau.ledger.audit import AuditReport
from dpdau.ledger.engine import Database
from dpdau.ledger.ledger import BUSY_TIMEOUT_SECONDS, Ledger


def migrate(
    url: str, *, mark_path: Path, clock: Clock, dry_run: bool = False
) -> tuple[schema.PendingRevision, ...]:
    """Brings the ledger's tables to the newest revision, as opening it does.

    Args:
        url: The ledger.
        mark_path: Its high-water mark.
        clock: What time it is.
        dry_run: True changes nothing and creates nothing.

    Returns:
        The revisions that were, or would be, applied, with their SQL.
    """
    database = Database(url, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS)
    try:
        current = None
        if database.path is None or database.path.exists():
            current = database.run("current_revision", schema.current_revision, write=False)
    finally:
        database.close()
    pending = schema.pending_revisions(current, dialect_name=database.dialect_name)
    if not dry_run:
        Ledger(url, mark_path=mark_path, clock=clock).close()
    return pending


def restore(
    source: Path, *, url: str, mark_path: Path, clock: Clock, actor: str, reason: str
) -> AuditReport:
    """Puts a verified backup in the place of the ledger and writes that down.

    Nobody may have the ledger open. A backup that is older than the high-water mark is refused.

    Returns:
        The audit of the backup, before the entry of the restore itself.

    Raises:
        LedgerCorruptError: The backup is not sound, or it is older than the mark.
        InvalidSettingError: There is no backup at the source, or there is a ledger without a mark.
    """
    report = backups.restore_ledger(
        source, url=url, mark_path=mark_path, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS
    )
    ledger = Ledger(url, mark_path=mark_path, clock=clock)
    try:
        facts = {"reason": reason, "entries": report.entries, "head_hash": report.head_hash}
        ledger.audit_event(actor, "ledger_restored", facts)
    finally:
        ledger.close()
    return report


def verify_backup(source: Path, *, mark_path: Path) -> AuditReport:
    """Audits a backup against the high-water mark; changes nothing.

    Raises:
        LedgerCorruptError: The backup is not sound, or it is older than the mark.
        InvalidSettingError: There is no backup at the source.
    """
    return backups.verify_backup(
        source, mark_path=mark_path, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS
    )
