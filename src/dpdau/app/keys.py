"""The pseudonym keys of a data directory: which are in use, when they change, when they go."""

import contextlib
import datetime as dt
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from dpdau.activity.store import ActivityStore
from dpdau.app.wiring import EPOCH_NOTE, noted_epoch, secret_of
from dpdau.datadir import DataDir, DataDirUse
from dpdau.domain import WINDOW_DAYS_MAX, Clock
from dpdau.errors import DataDirInUseError, InvalidPlanError
from dpdau.ingest.batch import ingest
from dpdau.ingest.event import Decoded
from dpdau.ledger.ledger import Ledger
from dpdau.pseudonym import EpochKey, Keyring, Overlap, Pseudonymizer
from dpdau.settings import Settings

KEY_DAYS_MAX: Final = 3660
"""The longest time that one key can be asked to stay in use."""
_MONTH_DAYS_MAX: Final = 31
_SCHEDULE: Final = "schedule"
_OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is to happen to the pseudonym keys.

    Attributes:
        epoch_id: The key that comes next.
        effective: The day of arrival from which it is used.
        next_rotation: The day on which it is replaced in turn.
        older_until: The day on which the key before it is destroyed.
        first_day: The first day of which events are taken from then on.
        live_keys: How many keys each user id is hashed under, from `effective` on.
    """

    epoch_id: int
    effective: dt.date
    next_rotation: dt.date
    older_until: dt.date
    first_day: dt.date
    live_keys: int

    def to_json(self) -> dict[str, Any]:
        """All fields, days as text."""
        return {
            name: one.isoformat() if isinstance(one, dt.date) else one
            for name, one in asdict(self).items()
        }


class Keys:
    """The keyring of a data directory, in step with the clock.

    Args:
        keyring: What was read under the hold on the directory.
        settings: How old a key gets, how long windows are and how late a day closes.
        clock: What time it is.
        owned: The data directory, where this process has it to itself and may change the keys.
            None where others use it too: then the keys stay as they are.
        ledger: Where each change is recorded.
        store: Where it is noted which key is the newest, so that an older copy of the keyring can
            be told. None for a reader.

    Guarantee: as long as any process holds the directory, all processes that hold it use the same
    keys; and a key is in the file as used before the first pseudonym is made under it. So no row
    is written under a key after one was written under a newer one, also when the clock goes back.
    """

    def __init__(
        self,
        keyring: Keyring,
        settings: Settings,
        *,
        clock: Clock,
        owned: DataDir | None,
        ledger: Ledger,
        store: ActivityStore | None,
    ) -> None:
        self._keyring = keyring
        self._settings = settings
        self._clock = clock
        self._owned = owned
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._tended_on: dt.date | None = None
        self._pseudonymizer = _pseudonymizer(keyring)
        # A process may have died between the keyring and the store.
        self._note(keyring, self._pseudonymizer)

    def pseudonymizer(self) -> Pseudonymizer:
        """What turns a user id into the pseudonyms under every live key.

        Guarantee: as long as the keys do not change it is the same object. Whoever looks for a user
        under it and gets the same one afterwards has missed no name of the user.

        Raises:
            StoreUnavailableError: A key is due and the keyring cannot be written.
        """
        self.tend()
        return self._pseudonymizer

    def tend(self) -> None:
        """Once a day: makes the key that is due, uses it, and destroys those whose time is over.

        Cheap on every other call. It does nothing where others use the directory too.

        Raises:
            StoreUnavailableError: The keyring cannot be written; all is as before.
        """
        today = self._today()
        if self._owned is None or self._tended_on == today:
            return
        with self._lock:
            if self._tended_on != today:
                self._take_over(_stepped(self._keyring, self._settings, self._clock), _SCHEDULE)
                self._tended_on = today

    def plan(self, effective: dt.date, *, rotation_days: int | None = None) -> KeyChange:
        """Makes the next key ahead of time, in place of one that was planned before.

        It is used at once where its day is today.

        Args:
            effective: From today to the day on which the key in use is replaced by itself.
            rotation_days: After how many days it is replaced in turn; the setting by default.

        Raises:
            InvalidPlanError: The day or the number of days is out of range.
            StoreUnavailableError: The keyring cannot be written; all is as before.
        """
        assert self._owned is not None, "the command has the directory to itself"
        self.tend()
        if rotation_days is not None and not 1 <= rotation_days <= KEY_DAYS_MAX:
            raise InvalidPlanError(
                f"Expected --rotation-days of 1..{KEY_DAYS_MAX}, found {rotation_days}."
            )
        today, keyring = self._today(), self._keyring
        first = max(today, keyring.newest.effective + dt.timedelta(days=1))
        last = keyring.aged_out(self._settings.HASH_SALT_ROTATION_DAYS)
        if not first <= effective <= last:
            raise InvalidPlanError(
                f"Expected a day from {first.isoformat()} to {last.isoformat()}, when the key in "
                f"use is replaced by itself, found {effective.isoformat()}."
            )
        with self._lock:
            planned = keyring.rotated(
                effective, created_at=self._clock(), rotation_days=rotation_days
            )
            self._take_over(planned.activated(today), _OPERATOR)
        return self._change()

    def live(self) -> tuple[EpochKey, ...]:
        """The keys themselves, newest first, for executors that name users; as `pseudonymizer`."""
        return self._keyring.live()

    def store_key(self) -> bytes | None:
        """The key of the encrypted activity store, or None where it is not encrypted."""
        return self._keyring.store_key()

    def source_name(self, text: str) -> str:
        """The keyed hash of what names a source of events, the same under every epoch."""
        return self._keyring.source_name(text)

    def splits(self, first: dt.date, last: dt.date) -> bool:
        """Whether one user may have rows on these days under two names that nobody can tie."""
        return self._keyring.splits(first, last)

    def age_days(self) -> int:
        """How long the current pseudonym key has been in use."""
        # The first key was made on a day of UTC, which may be tomorrow here.
        return max(0, (self._today() - self._keyring.newest.since).days)

    def overdue_days(self) -> int:
        """For how many days the current key should have been replaced already; 0 if it is not."""
        return max(
            0,
            (
                self._today() - self._keyring.rotation_day(self._settings.HASH_SALT_ROTATION_DAYS)
            ).days,
        )

    def _today(self) -> dt.date:
        return _day(self._clock, self._settings)

    def _take_over(self, keyring: Keyring, actor: str) -> None:
        """Makes another keyring durable, uses it, and records what is different."""
        before = self._keyring
        if keyring is before:
            return
        assert self._owned is not None, "the keys change where nobody else uses them"
        keyring.save(self._owned.keyring)
        pseudonymizer = _pseudonymizer(keyring)
        self._note(keyring, pseudonymizer)
        self._keyring, self._pseudonymizer = keyring, pseudonymizer
        for action, facts in _differences(before, keyring):
            self._ledger.audit_event(actor, action, facts)

    def _note(self, keyring: Keyring, pseudonymizer: Pseudonymizer) -> None:
        """Notes in the store which key is the newest, before the first row is written under it."""
        if self._store is not None and noted_epoch(self._store) < keyring.in_use:
            nothing, note = Decoded((), (), 0), {EPOCH_NOTE: keyring.in_use}
            ingest(nothing, store=self._store, pseudonymizer=pseudonymizer, offsets=note)

    def _change(self) -> KeyChange:
        """What the newest epoch brings about."""
        epoch, overlap = self._keyring.epochs[-1], overlap_of(self._settings)
        then = self._keyring.activated(epoch.effective).destroyed(epoch.effective, overlap)
        return KeyChange(
            epoch_id=epoch.epoch_id,
            effective=epoch.effective,
            next_rotation=then.aged_out(self._settings.HASH_SALT_ROTATION_DAYS),
            older_until=overlap.ends(epoch),
            first_day=overlap.cutoff(epoch),
            live_keys=len(then.live()),
        )


def overlap_of(settings: Settings) -> Overlap:
    """How long an old key stays: past every window, and past every plan of a month."""
    return Overlap(
        span_days=max(WINDOW_DAYS_MAX, settings.MAU_WINDOW_DAYS + _MONTH_DAYS_MAX),
        late_days=math.ceil(settings.GRACE_HOURS / 24) + 1,
    )


def hold(
    folder: DataDir, settings: Settings, *, clock: Clock, serve_at: str | None, alone: bool
) -> tuple[DataDirUse, bool]:
    """A hold on the data directory, and whether nobody else has one.

    A command shares the directory with others, unless a key is due and it happens to be alone: the
    keys change only where no other process could go on under those that were.

    Raises:
        DataDirInUseError: A service owns it; or others use it, and it has to be owned.
    """
    if serve_at or alone:
        return folder.own(serve_at), True
    if Keyring.exists(folder.keyring):
        keyring = Keyring.open(folder.keyring, secret_of(settings))
        if _stepped(keyring, settings, clock) is not keyring:
            with contextlib.suppress(DataDirInUseError):
                return folder.own(), True
    return folder.use(), False


def _day(clock: Clock, settings: Settings) -> dt.date:
    return clock().astimezone(settings.zone).date()


def _stepped(keyring: Keyring, settings: Settings, clock: Clock) -> Keyring:
    """A keyring as it should be today; the same one where nothing is due."""
    today, rotation_days = _day(clock, settings), settings.HASH_SALT_ROTATION_DAYS
    if keyring.planned is None and today >= keyring.aged_out(rotation_days):
        keyring = keyring.rotated(today, created_at=clock())
    return keyring.activated(today).destroyed(today, overlap_of(settings))


def _pseudonymizer(keyring: Keyring) -> Pseudonymizer:
    return Pseudonymizer(keyring.live(), first_day=keyring.first_day)


def _differences(before: Keyring, after: Keyring) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is to be recorded of a change: epochs and days, nothing of a key."""
    if after.planned is not None and after.planned is not before.planned:
        planned = after.planned
        yield "key_planned", {"epoch_id": planned.epoch_id, "day": planned.effective.isoformat()}
    if after.in_use != before.in_use:
        used = after.newest
        yield "key_rotated", {"epoch_id": used.epoch_id, "day": used.effective.isoformat()}
    gone = {one.epoch_id for one in before.epochs if one.salt is None}
    for one in after.epochs:
        if one.cutoff is not None and one.epoch_id not in gone:
            facts = {"epoch_id": one.epoch_id, "first_day": one.cutoff.isoformat()}
            yield "key_destroyed", facts
