"""The way back: a backup of everything is put in place, and nothing is spent or used twice."""

import datetime as dt
import json
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpdau.activity.backup import make_writable
from dpdau.activity.store import ActivityStore
from dpdau.app.backups import (
    ACTIVITY,
    CARD_KEY,
    KEYRING,
    LEDGER,
    BackupReport,
    Checked,
    check,
    sync,
    sync_names,
    write,
)
from dpdau.app.gateway import READS_AGAIN, feed_of
from dpdau.app.wiring import known_ledger, open_store, secret_of, system_clock
from dpdau.datadir import DataDir
from dpdau.domain import Clock, actor
from dpdau.errors import (
    InvalidSettingError,
    LedgerCorruptError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.ingest.batch import ingest
from dpdau.ingest.event import Decoded
from dpdau.ledger import upkeep
from dpdau.ledger.backup import since_copy
from dpdau.ledger.places import ledger_file, ledger_path
from dpdau.ledger.steps import StoredPlan
from dpdau.plan import MonthPlan, live_plan_id, month_plan_id
from dpdau.pseudonym import Keyring, Pseudonymizer
from dpdau.pseudonym.key_file import KEYRING_FILE
from dpdau.release.noise import commitment_of
from dpdau.settings import Settings


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did, or would do.

    Attributes:
        backup: What was restored.
        keeps_ledger: Whether the ledger that is here stays, because it is newer.
        unchanged: Whether the ledger proves that nothing happened since the backup was made.
        entries_since: Entries that the ledger here has on top of the backup's.
        erasures_since: Erasures on record that are not in the backup: their users come back with
            it. One may be of the time when it was made.
        plans_since: Plans that released numbers after the backup: they cannot go on from it.
        abandoned: Month plans that cannot go on and were given up.
        reads_again: Whether the store takes events from Kafka once more that it had taken before
            somebody was erased: who is erased again before they are in comes back with them.
    """

    backup: BackupReport
    keeps_ledger: bool
    unchanged: bool
    entries_since: int
    erasures_since: tuple[str, ...]
    plans_since: tuple[str, ...]
    abandoned: tuple[str, ...] = ()
    reads_again: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "backup": self.backup.to_json(),
            "keeps_ledger": self.keeps_ledger,
            "unchanged": self.unchanged,
            "entries_since": self.entries_since,
            "erasures_since": list(self.erasures_since),
            "plans_since": list(self.plans_since),
            "abandoned": list(self.abandoned),
            "reads_again": self.reads_again,
        }


def restore_all(
    settings: Settings,
    source: Path,
    *,
    reason: str,
    verify_only: bool = False,
    accept_older: bool = False,
    clock: Clock = system_clock,
) -> RestoreReport:
    """Brings a backup of everything back, or only checks it.

    Args:
        settings: Where to, and under which secret.
        source: The folder that `back_up` made.
        reason: Why; kept in the ledger.
        verify_only: Changes nothing.
        accept_older: Brings back activity although more happened since, or although nothing shows
            that nothing did: events and erasures after the backup are lost.
        clock: What time it is.

    Guarantee: everything is verified before anything is changed. Spending is never refunded: a
    ledger that is newer than the backup stays, and an older one is refused. Noise is never used
    twice: a month plan that may have published days after the backup is given up. The data
    directory has the old state or the new one; in between it refuses to be opened.

    Raises:
        IntegrityError: The backup is damaged or belongs to another secret, ledger or keyring.
        InvalidSettingError: There is no backup, or it is older and `accept_older` is off.
        DataDirInUseError: A service or another command is using the directory.
    """
    if not verify_only:
        from dpdau.app.spark import refuse_with_lake

        refuse_with_lake(settings, "a restore of everything", "Restore into a new DATA_DIR.")
    folder = DataDir(settings.DATA_DIR).create()
    with ExitStack() as held:
        if not verify_only:
            held.callback(folder.own().close)
        try:
            checked = check(settings, folder, source)
            found = _compared(settings, folder, checked, clock)
            if verify_only:
                return found
            # A restore that was cut short was accepted, and has itself made the ledger newer.
            accepted = accept_older or _noted(folder).get("backup") == _name(checked)
            if not accepted and (not found.unchanged or found.erasures_since):
                raise _older(found)
            _require_same_keys(settings, folder, checked.keyring)
            return _restored(settings, folder, checked, found, reason=reason, clock=clock)
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected to restore {source} into {folder.root}, found: {error}."
            ) from error


def _compared(settings: Settings, folder: DataDir, checked: Checked, clock: Clock) -> RestoreReport:
    """What the ledger that is here, or its mark, says of the time since the backup."""
    url, keeps, more = settings.ledger_url, False, 0
    recorded, went_on = checked.recorded, frozenset[str]()
    path = ledger_file(url)
    if path is None or (path.exists() and folder.mark.exists()):
        # A ledger that is damaged is as good as none; its mark still counts.
        with suppress(LedgerCorruptError):
            known_ledger(settings, folder, clock=clock).close()
            keeps = True
    if keeps:
        since = since_copy(url, checked.ledger)
        more, keeps = since.entries, since.entries >= 0
    if keeps:
        recorded, went_on = since.erasures, since.plans
    unchanged = keeps and more == 0
    if not keeps:
        ledger_path(url)  # Refuses a database: this puts files back.
        marked = folder.mark.exists()
        upkeep.verify_backup(checked.report.path / LEDGER, mark_path=folder.mark)
        head = json.loads(folder.mark.read_bytes())["seq"] if marked else None
        unchanged = head == checked.ledger.entries
    return RestoreReport(
        backup=checked.report,
        keeps_ledger=keeps,
        unchanged=unchanged,
        entries_since=max(more, 0),
        erasures_since=tuple(one for one in recorded if one not in checked.erased),
        plans_since=tuple(sorted(went_on)),
    )


def _older(found: RestoreReport) -> InvalidSettingError:
    """The refusal of a backup that may be older than what was there."""
    since = f"{found.entries_since} entries of the ledger are newer"
    if found.unchanged:
        since = "somebody was being erased while it was made"
    elif not found.keeps_ledger:
        since = "no newer ledger is here to show what happened since"
    listed = "".join(f"\n  {one}" for one in found.erasures_since)
    back = f" Users of these erasures come back and must be erased again:{listed}" if listed else ""
    return InvalidSettingError(
        f"Expected the newest backup, found one of {found.backup.made_at.isoformat()}: {since}. "
        "Events and erasures since then are not in it. Restore it with --accept-older-activity, "
        f"and repeat those erasures.{back}",
        erasures_since=list(found.erasures_since),
        entries_since=found.entries_since,
    )


def _require_same_keys(settings: Settings, folder: DataDir, backup: Keyring) -> None:
    """The keyring that is here stays; so it must know every key of the backup.

    Raises:
        StoreCorruptError: It does not.
    """
    if not Keyring.exists(folder.keyring):
        return
    here = Keyring.open(folder.keyring, secret_of(settings))
    # One that is only planned names nobody; it may have been planned anew since, or used.
    known, used = ({(one.epoch_id, one.created_at) for one in it.used} for it in (here, backup))
    if not (here.store_key() == backup.store_key() and known >= used):
        raise StoreCorruptError(
            f"Expected the keyring in {folder.keyring} to know the keys of the backup, found "
            "another or an older one. Move it away to use the backup's."
        )


def _restored(
    settings: Settings,
    folder: DataDir,
    checked: Checked,
    found: RestoreReport,
    *,
    reason: str,
    clock: Clock,
) -> RestoreReport:
    """Puts everything in place, behind a note that keeps everybody out until it is done."""
    source = checked.report.path
    # What an interrupted restore knew before it changed the ledger decides.
    trusted = (found.unchanged or found.keeps_ledger) and _noted(folder).get("trusted", True)
    note = {"trusted": trusted, "backup": _name(checked)}
    shutil.rmtree(folder.stage, ignore_errors=True)
    folder.stage.mkdir(mode=0o700)
    shutil.copytree(source / ACTIVITY, folder.stage / ACTIVITY, copy_function=shutil.copyfile)
    make_writable(folder.stage / ACTIVITY)
    sync(folder.stage)
    write(folder.root / "restore.json.tmp", json.dumps(note).encode())
    (folder.root / "restore.json.tmp").rename(folder.restoring)
    sync_names(folder.root)
    if not found.keeps_ledger:
        upkeep.restore(
            source / LEDGER,
            url=settings.ledger_url,
            mark_path=folder.mark,
            clock=clock,
            actor=actor(),
            reason=reason,
        )
    if not Keyring.exists(folder.keyring):
        write(folder.stage / KEYRING_FILE, (source / KEYRING).read_bytes())
        (folder.stage / KEYRING_FILE).rename(folder.keyring / KEYRING_FILE)
        sync_names(folder.keyring)
    if (source / CARD_KEY).exists() and not folder.card_key.exists():
        write(folder.stage / CARD_KEY, (source / CARD_KEY).read_bytes())
        (folder.stage / CARD_KEY).rename(folder.card_key)
    if folder.activity.exists():
        folder.activity.rename(folder.stage / "replaced")
    (folder.stage / ACTIVITY).rename(folder.activity)
    sync_names(folder.root)
    settled = _settle(settings, folder, checked, found, (trusted, reason, clock))
    # What was replaced goes before the directory may be opened: an erasure would not reach it.
    shutil.rmtree(folder.stage)
    sync_names(folder.root)
    folder.restoring.unlink()
    sync_names(folder.root)
    return settled


def _noted(folder: DataDir) -> dict[str, Any]:
    """What a restore that was cut short wrote down; nothing where there was none."""
    if not folder.restoring.exists():
        return {}
    return dict(json.loads(folder.restoring.read_bytes()))


def _name(checked: Checked) -> list[str]:
    """What tells a backup from another."""
    return [checked.report.made_at.isoformat(), checked.report.head_hash]


def _settle(
    settings: Settings,
    folder: DataDir,
    checked: Checked,
    found: RestoreReport,
    how: tuple[bool, str, Clock],
) -> RestoreReport:
    """Records the restore, and gives up what cannot go on without using noise twice."""
    trusted, reason, clock = how
    store = open_store(folder, checked.keyring, clock=clock, read_only=False)
    ledger = known_ledger(settings, folder, clock=clock)
    try:
        ledger.audit_event(
            actor(),
            "activity_restored",
            {
                "reason": reason,
                "made_at": checked.report.made_at.isoformat(),
                "erasures_since": list(found.erasures_since),
            },
        )
        abandoned = []
        for month in ledger.unfinished_months():
            plan_id = month_plan_id(month)
            stored = ledger.find_plan(plan_id)
            assert stored is not None, "an unfinished plan is there"
            if plan_id in found.plans_since or not (trusted and _goes_on(store, stored)):
                ledger.abandon(plan_id, actor=actor(), reason=f"restored: {reason}")
                store.end_month(month)
                abandoned.append(month)
        if not trusted or any(one == live_plan_id(one[-7:]) for one in found.plans_since):
            # Its noise goes, so that no tick is made of it again.
            store.live.end(dt.date.max)
        reads_again = _note_reads_again(settings, store, checked.keyring, found)
        return replace(found, abandoned=tuple(abandoned), reads_again=reads_again)
    finally:
        ledger.close()
        store.close()


def _note_reads_again(
    settings: Settings, store: ActivityStore, keyring: Keyring, found: RestoreReport
) -> bool:
    """Notes in a store that somebody may come back with what it reads from Kafka.

    Whether it was fed when the backup was made says nothing: it may have been since.

    Returns:
        Whether it is to be told, because Kafka feeds it, as far as that is known.
    """
    knows_all = found.unchanged or found.keeps_ledger
    if knows_all and not found.erasures_since:
        return False
    nothing, note = Decoded((), (), 0), {READS_AGAIN: 1}
    ingest(nothing, store=store, pseudonymizer=Pseudonymizer(keyring.live()), offsets=note)
    feed = keyring.source_name(feed_of(settings.KAFKA_TOPIC))
    return bool(settings.KAFKA_BOOTSTRAP_SERVERS) or store.offset(feed) is not None


def _goes_on(store: ActivityStore, stored: StoredPlan) -> bool:
    """Whether a store has the noise of a plan, and knows the days that it released."""
    if stored.commitment is None:
        return True
    plan = MonthPlan.from_json(stored.body)
    secret = store.secret(plan.month)
    taken = plan.days_taken(stored.steps_taken)
    day = plan.first + dt.timedelta(days=taken)
    before = None if taken == 0 else day - dt.timedelta(days=1)
    return (
        secret is not None
        and commitment_of(secret) == stored.commitment
        and store.frozen_through(plan.month) in (before, day)
    )
