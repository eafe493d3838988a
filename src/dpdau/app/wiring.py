"""Settings turned into what the rooms take: terms, rules, secrets, stores; and the clock."""

import datetime as dt
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpdau import plan as promises
from dpdau.activity.store import ActivityStore
from dpdau.app.rules import ingest_rules as ingest_rules
from dpdau.app.rules import system_clock as system_clock
from dpdau.datadir import DataDir
from dpdau.domain import WAU_WINDOW_DAYS, Clock, Metric, month_of
from dpdau.errors import (
    InvalidPlanError,
    InvalidSettingError,
    LedgerCorruptError,
    ReleaseNotReadyError,
    SecretMismatchError,
    StoreCorruptError,
    UnsupportedMechanismError,
)
from dpdau.ledger import upkeep
from dpdau.ledger.audit import AuditReport
from dpdau.ledger.copying import Moved
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.places import ledger_file
from dpdau.ledger.statement import ReportTerms
from dpdau.mechanisms.matrix import strategies
from dpdau.mechanisms.matrix.covariance import Progress
from dpdau.mechanisms.matrix.live import live_strategy
from dpdau.mechanisms.matrix.strategies import CertifiedStrategy, month_key
from dpdau.plan import PrivacyTerms
from dpdau.settings import Settings

if TYPE_CHECKING:
    from dpdau.pseudonym import Keyring
    from dpdau.telemetry import Metrics

WRITER_WAIT_SECONDS: Final = 15.0
EPOCH_NOTE: Final = "pseudonym-epoch"
"""Under this name the store notes, as an offset, the newest key that it was written under."""
_ANY_DAY: Final = dt.date(2000, 1, 1)


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
        plan_epsilon=settings.exact("PLAN_EPSILON"),
        plan_delta=settings.exact("PLAN_DELTA"),
        mau_window_days=settings.MAU_WINDOW_DAYS,
        live_epsilon=None if settings.LIVE_EPSILON is None else settings.exact("LIVE_EPSILON"),
    )


def checked_terms(settings: Settings) -> PrivacyTerms:
    """The terms, after every mechanism and budget was built from them once.

    Raises:
        InvalidSettingError: One line that names the settings that do not go together.
    """
    found = terms(settings)
    if settings.RELEASE_POLICY == "plan" and settings.MAU_WINDOW_DAYS <= WAU_WINDOW_DAYS:
        raise InvalidSettingError(
            f"MAU_WINDOW_DAYS: expected more than {WAU_WINDOW_DAYS} with RELEASE_POLICY=plan, "
            f"found {settings.MAU_WINDOW_DAYS}."
        )
    try:
        promises.budget(promises.PLAN, month_of(_ANY_DAY), found).cap()
    except InvalidPlanError as error:
        raise InvalidSettingError(
            f"PLAN_EPSILON or PLAN_DELTA is out of range: {error.message}"
        ) from None
    for metric in Metric:
        try:
            asked = promises.question(
                metric, _ANY_DAY, window_days=None, segment=None, timezone="UTC", terms=found
            )
            plan = promises.on_demand(asked, edition=0, terms=found)
            plan.budget.guarantee()
        except (InvalidPlanError, UnsupportedMechanismError) as error:
            name = metric.name
            raise InvalidSettingError(
                f"EPSILON_{name}, {name}_BUDGET_TOTAL or DELTA is out of range: {error.message}"
            ) from None
    if found.live_epsilon is not None:
        try:
            # The number of ticks hardly moves the scale, which alone can be out of range.
            promises.live(_ANY_DAY, timezone="UTC", terms=found, strategy=live_strategy(1))
        except (InvalidPlanError, UnsupportedMechanismError) as error:
            raise InvalidSettingError(
                f"LIVE_EPSILON or PLAN_DELTA is out of range: {error.message}"
            ) from None
    return found


@dataclass(frozen=True, slots=True)
class StrategyShelf:
    """The noise strategies of month plans: shipped, or solved here once and kept.

    Solving takes a minute, so a service does it on a thread of its own; whoever asks before that
    is told to ask again.
    """

    folder: Path
    solving: bool = False
    progress: Progress | None = None

    def __call__(self, days: int, mau_window_days: int) -> CertifiedStrategy:
        """The strategy for a month of `days` days.

        Raises:
            ReleaseNotReadyError: It is not solved yet, and `solving` is off.
            InvalidPlanError: There is none for such a window.
        """
        key = month_key(days, mau_window_days)
        if not (self.solving or strategies.is_solved(key, self.folder)):
            raise ReleaseNotReadyError(
                f"Expected a solved strategy for {days} days and a MAU window of "
                f"{mau_window_days}, found none yet; `dpdau plan price` solves it."
            )
        return strategies.obtain(key, self.folder, progress=self.progress)

    def fill(self, mau_window_days: int) -> None:
        """Solves what is missing for a month of any length."""
        for days in strategies.SHIPPED_HORIZONS:
            replace(self, solving=True)(days, mau_window_days)


def report_terms(settings: Settings) -> ReportTerms:
    """What the report is computed at."""
    return ReportTerms(
        delta=settings.exact("DELTA"),
        rdp_orders=settings.RDP_ORDERS,
        advanced_delta=settings.exact("ADVANCED_DELTA"),
        policy=settings.RELEASE_POLICY,
    )


def migrate_ledger(settings: Settings, *, dry_run: bool) -> list[str]:
    """Brings the ledger's tables up to date; returns the SQL of each revision that was missing."""
    folder = DataDir(settings.DATA_DIR).create()
    pending = upkeep.migrate(
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
        return upkeep.verify_backup(source, mark_path=folder.mark)
    use = folder.own()
    try:
        return upkeep.restore(
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
    from dpdau.pseudonym import parse_secret

    if settings.HASH_SALT_SECRET is None:
        raise InvalidSettingError(
            "HASH_SALT_SECRET is not set; run `dpdau init` to make one.", setting="HASH_SALT_SECRET"
        )
    return parse_secret(settings.HASH_SALT_SECRET.get_secret_value())


def open_store(
    folder: DataDir,
    keyring: "Keyring",
    settings: Settings | None = None,
    *,
    clock: Clock,
    read_only: bool,
) -> ActivityStore:
    """The store, embedded or a lake; a reader that comes first makes it, as a writer would.

    Where the settings pass events on to Kafka, it answers only for what was consumed into it.

    Raises:
        InvalidSettingError: A setting asks for what the store does not have.
        StoreCorruptError: It was written under a newer key than the keyring knows: its users would
            get second names, and count twice.
    """
    store = _opened(folder, keyring, settings, clock=clock, read_only=read_only)
    noted = noted_epoch(store)
    if noted > keyring.in_use:
        store.close()
        raise StoreCorruptError(
            f"Expected a keyring in {folder.keyring} that has key {noted} in use, found an older "
            f"copy, with key {keyring.in_use}: users would be counted twice. Put the newest one "
            "back; or move it away, and `dpdau restore` a backup of everything."
        )
    return store


def _opened(
    folder: DataDir,
    keyring: "Keyring",
    settings: Settings | None,
    *,
    clock: Clock,
    read_only: bool,
) -> ActivityStore:
    """The store of the settings, whatever keys it was written under."""
    key = keyring.store_key()
    if settings is not None and settings.SPARK_MASTER is not None:
        from dpdau.app.spark import open_lake

        return open_lake(folder, settings, store_key=key, clock=clock, read_only=read_only)
    from dpdau.activity.change import StoreLimits
    from dpdau.activity.embedded import EmbeddedStore

    if read_only and not EmbeddedStore.exists(folder.activity):
        EmbeddedStore(folder.activity, store_key=key, clock=clock).close()
    made: Callable[..., EmbeddedStore] = EmbeddedStore
    if settings is not None and settings.INGEST_MODE == "kafka":
        from dpdau.app.gateway import GatewayStore, feed_of

        made = partial(GatewayStore, feed=keyring.source_name(feed_of(settings.KAFKA_TOPIC)))
    return made(
        folder.activity,
        store_key=key,
        clock=clock,
        read_only=read_only,
        limits=StoreLimits(lock_wait_seconds=WRITER_WAIT_SECONDS),
    )


def noted_epoch(store: ActivityStore) -> int:
    """The newest key that a store was written under; the first one needs no note."""
    return store.offset(EPOCH_NOTE) or 1


def open_ledger(
    settings: Settings,
    folder: DataDir,
    store: ActivityStore,
    *,
    clock: Clock,
    metrics: "Metrics | None" = None,
) -> Ledger:
    """The ledger; made only where nothing was released from this activity yet.

    Raises:
        LedgerCorruptError: Days were released, and neither a ledger nor its mark is there: a new
            ledger would refund what was spent.
    """
    if may_be_new(settings, folder) and store.has_closed_days():
        place = ledger_file(settings.ledger_url) or "a place that this directory has a mark of"
        raise LedgerCorruptError(
            f"Expected the ledger of the days that were released, found none at {place}. Put it "
            "back, or restore a backup; a new ledger would refund what was spent."
        )
    return known_ledger(settings, folder, clock=clock, metrics=metrics)


def may_be_new(settings: Settings, folder: DataDir) -> bool:
    """Whether nothing here shows that the ledger was used before."""
    path = ledger_file(settings.ledger_url)
    return not folder.mark.exists() and (path is None or not path.exists())


def known_ledger(
    settings: Settings, folder: DataDir, *, clock: Clock, metrics: "Metrics | None" = None
) -> Ledger:
    """The ledger of the settings, for whoever has made sure that it may be new."""
    return Ledger(
        settings.ledger_url,
        mark_path=folder.mark,
        clock=clock,
        busy_timeout_seconds=settings.LEDGER_LOCK_TIMEOUT_SECONDS,
        statement_timeout_seconds=settings.LEDGER_STATEMENT_TIMEOUT_SECONDS,
        metrics=metrics,
    )


def copy_ledger(settings: Settings, url: str, *, moved: Moved) -> AuditReport:
    """Copies the ledger into an empty database of any kind, and verifies the copy.

    Raises:
        DataDirInUseError: A service or another command is using the directory.
        InvalidSettingError: The target is not a URL of a ledger, or has a ledger.
        LedgerCorruptError: The copy is not sound; nothing is left of it.
    """
    folder = DataDir(settings.DATA_DIR).create()
    if may_be_new(settings, folder):
        raise InvalidSettingError(
            "Expected a ledger to copy, found none that this data directory has used."
        )
    with ExitStack() as held:
        held.callback(folder.own().close)
        ledger = known_ledger(settings, folder, clock=system_clock)
        held.callback(ledger.close)
        return ledger.copy(url, moved=moved)


def open_keyring(
    folder: DataDir, secret: bytes, *, clock: Clock, encrypt_store: bool = False
) -> "Keyring":
    """The keyring of a data directory; made only where there is no activity yet.

    Raises:
        SecretMismatchError: There is activity whose keyring is gone: new keys would count every
            user as somebody else.
        StoreCorruptError: A restore was cut short.
    """
    if folder.restoring.exists():
        raise StoreCorruptError(
            f"Expected a data directory that is whole, found that a restore into {folder.root} was "
            "cut short. Run the same `dpdau restore` again; until then nothing is opened."
        )
    from dpdau.activity.embedded import EmbeddedStore
    from dpdau.pseudonym import Keyring

    if EmbeddedStore.exists(folder.activity) and not Keyring.exists(folder.keyring):
        raise SecretMismatchError(
            f"Expected the keyring of the activity in {folder.activity}, found none in "
            f"{folder.keyring}. Restore it from a backup, or start a new DATA_DIR."
        )
    return Keyring.open_or_create(folder.keyring, secret, clock=clock, encrypt_store=encrypt_store)


def sketch_impl(settings: Settings) -> str:
    """How distinct users are counted, by its one name: `set` is another word for exact."""
    return "exact" if settings.SKETCH_IMPL == "set" else settings.SKETCH_IMPL
