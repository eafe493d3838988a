"""Settings turned into what the rooms take: terms, rules, secrets, stores; and the clock."""

import datetime as dt
from pathlib import Path

from dpdau.activity.embedded import EmbeddedStore
from dpdau.datadir import DataDir
from dpdau.domain import (
    Clock,
    Metric,
)
from dpdau.errors import InvalidSettingError, SecretMismatchError
from dpdau.ingest.event import Fields, Rules
from dpdau.ledger import ledger as ledgers
from dpdau.ledger.audit import AuditReport
from dpdau.ledger.statement import ReportTerms
from dpdau.plan import PrivacyTerms
from dpdau.pseudonym import Keyring, parse_secret
from dpdau.settings import Settings


def system_clock() -> dt.datetime:
    """The one place where the product asks what time it is."""
    return dt.datetime.now(dt.UTC)  # noqa: TID251


def terms(settings: Settings) -> PrivacyTerms:
    """The privacy parameters of the settings, as exact fractions."""
    return PrivacyTerms(
        epsilon={
            Metric.DAU: settings.exact("EPSILON_DAU"),
            Metric.WAU: settings.exact("EPSILON_WAU"),
            Metric.MAU: settings.exact("EPSILON_MAU"),
        },
        cap={
            Metric.DAU: settings.exact("DAU_BUDGET_TOTAL"),
            Metric.WAU: settings.exact("WAU_BUDGET_TOTAL"),
            Metric.MAU: settings.exact("MAU_BUDGET_TOTAL"),
        },
        delta=settings.exact("DELTA"),
        mau_window_days=settings.MAU_WINDOW_DAYS,
    )


def report_terms(settings: Settings) -> ReportTerms:
    """What the report is computed at."""
    return ReportTerms(
        delta=settings.exact("DELTA"),
        rdp_orders=settings.RDP_ORDERS,
        advanced_delta=settings.exact("ADVANCED_DELTA"),
        policy=settings.RELEASE_POLICY,
    )


def ingest_rules(settings: Settings, today: dt.date, *, fields: Fields | None = None) -> Rules:
    """What an event must be under these settings on a day."""
    return Rules(
        today=today,
        zone=settings.zone,
        dimensions=settings.DIMENSIONS,
        retention_days=settings.RETENTION_DAYS,
        fields=fields or Fields(),
    )


def migrate_ledger(settings: Settings, *, dry_run: bool) -> list[str]:
    """Brings the ledger's tables up to date; returns the SQL of each revision that was missing."""
    folder = DataDir(settings.DATA_DIR).create()
    pending = ledgers.migrate(
        settings.ledger_url, mark_path=folder.mark, clock=system_clock, dry_run=dry_run
    )
    return [f"-- {one.revision}: {one.summary}\n{one.sql}" for one in pending]


def restore_ledger(
    settings: Settings, source: Path, *, reason: str, verify_only: bool
) -> AuditReport:
    """Puts a copy in the place of the ledger, or only checks it.

    Raises:
        DataDirInUseError: A service or another command is using the directory.
        LedgerCorruptError: The copy is not sound, or older than the high-water mark.
    """
    folder = DataDir(settings.DATA_DIR).create()
    if verify_only:
        return ledgers.verify_backup(source, mark_path=folder.mark)
    use = folder.own("dpdau restore")
    try:
        return ledgers.restore(
            source,
            url=settings.ledger_url,
            mark_path=folder.mark,
            clock=system_clock,
            actor="operator",
            reason=reason,
        )
    finally:
        use.close()


def secret_of(settings: Settings) -> bytes:
    """The bytes of `HASH_SALT_SECRET`.

    Raises:
        InvalidSettingError: It is missing, too short, or a placeholder.
    """
    if settings.HASH_SALT_SECRET is None:
        raise InvalidSettingError(
            "HASH_SALT_SECRET is not set; run `dpdau init` to make one.", setting="HASH_SALT_SECRET"
        )
    return parse_secret(settings.HASH_SALT_SECRET.get_secret_value())


def open_store(
    folder: DataDir, keyring: Keyring, *, clock: Clock, read_only: bool
) -> EmbeddedStore:
    """The embedded store; a reader that comes first makes it, as a writer would."""
    key = keyring.store_key()
    if read_only and not EmbeddedStore.exists(folder.activity):
        EmbeddedStore(folder.activity, store_key=key, clock=clock).close()
    return EmbeddedStore(folder.activity, store_key=key, clock=clock, read_only=read_only)


def open_keyring(
    folder: DataDir, secret: bytes, *, clock: Clock, encrypt_store: bool = False
) -> Keyring:
    """The keyring of a data directory; made only where there is no activity yet.

    Raises:
        SecretMismatchError: There is activity whose keyring is gone: new keys would count every
            user as somebody else.
    """
    if EmbeddedStore.exists(folder.activity) and not Keyring.exists(folder.keyring):
        raise SecretMismatchError(
            f"Expected the keyring of the activity in {folder.activity}, found none in "
            f"{folder.keyring}. Restore it from a backup, or start a new DATA_DIR."
        )
    return Keyring.open_or_create(folder.keyring, secret, clock=clock, encrypt_store=encrypt_store)


def sketch_impl(settings: Settings) -> str:
    """How distinct users are counted, by its one name: `set` is another word for exact."""
    return "exact" if settings.SKETCH_IMPL == "set" else settings.SKETCH_IMPL
