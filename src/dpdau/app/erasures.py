"""Erasure as the verbs see it, and the proof that it reached everything."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dpdau.activity import erasure, residue
from dpdau.activity.access import MANIFEST, SEGMENTS
from dpdau.activity.residue import Findings, Kept
from dpdau.app.backups import remove_leftovers
from dpdau.app.gateway import require_activity
from dpdau.app.intake import Intake
from dpdau.app.keys import Keys
from dpdau.app.sealed import is_sealed
from dpdau.datadir import DataDir
from dpdau.domain import ErasureReceipt, actor
from dpdau.ingest.event import check_user_id
from dpdau.release import MonthReleaser
from dpdau.telemetry import Metrics

USER_ID_BYTES_MIN: Final = 8
"""A shorter user id is not looked for in the bytes: it would be found by chance."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What finishing the outstanding removals did.

    Attributes:
        months_ended: Plans that were over and of which something was kept.
        leftovers: What a backup or restore that was cut short had left, and is gone.
        bytes_before: The bytes of the activity store before.
        bytes_after: And afterwards.
    """

    months_ended: tuple[str, ...]
    leftovers: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "months_ended": list(self.months_ended),
            "leftovers": list(self.leftovers),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }


@dataclass(frozen=True, slots=True)
class KeptNow:
    """The tombstones of one open plan, and whether its last day should be taken by now."""

    kept_for: str
    through: dt.date
    pseudonyms: int
    overdue: bool

    def to_json(self) -> dict[str, Any]:
        """All fields, the day as text."""
        return {
            "kept_for": self.kept_for,
            "through": self.through.isoformat(),
            "pseudonyms": self.pseudonyms,
            "overdue": self.overdue,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """What was looked at, and what was found.

    Attributes:
        stores: The folders of the activity stores that were parsed: the one in use, and those of
            the backups anywhere in the data directory.
        files: Files whose bytes were read.
        bytes: Their bytes.
        rows: Rows that were parsed, decrypted where they are encrypted.
        keys_searched: Under how many live keys the user was looked for; None without a user.
        id_searched: Whether the user id itself was looked for too; a short one is found by chance.
        found: Where the user was found, but for tombstones.
        user_tombstones: Open plans that keep a tombstone of the user.
        problems: What contradicts itself.
        kept: All tombstones of the store in use, by plan.
        unread: Encrypted backups in the data directory: whether the user is in them is not known.
    """

    stores: tuple[str, ...]
    files: int
    bytes: int
    rows: int
    keys_searched: int | None
    id_searched: bool
    found: tuple[str, ...]
    user_tombstones: tuple[str, ...]
    problems: tuple[str, ...]
    kept: tuple[KeptNow, ...]
    unread: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that should not be there."""
        return not self.found and not self.problems

    def to_json(self) -> dict[str, Any]:
        """All fields, and whether the proof holds."""
        return {
            "ok": self.ok,
            "stores": list(self.stores),
            "files": self.files,
            "bytes": self.bytes,
            "rows": self.rows,
            "keys_searched": self.keys_searched,
            "id_searched": self.id_searched,
            "found": list(self.found),
            "user_tombstones": list(self.user_tombstones),
            "problems": list(self.problems),
            "tombstones": [one.to_json() for one in self.kept],
            "unread": list(self.unread),
        }


class Erasures:
    """The verbs that take a user out, say what was done, and prove it.

    Args:
        releaser: The store, the ledger and the calendar of this product, and its month plans.
        intake: The way of events into the store, for which an erasure waits.
        keys: What names users.
        metrics: Counters to keep, where someone reads them.
    """

    def __init__(
        self, releaser: MonthReleaser, *, intake: Intake, keys: Keys, metrics: Metrics | None
    ) -> None:
        self._releaser = releaser
        self._intake = intake
        self._store = releaser.store
        self._ledger = releaser.ledger
        self._calendar = releaser.calendar
        self._keys = keys
        self._metrics = metrics

    def erase(self, user_id: str) -> ErasureReceipt:
        """See `Verbs.erase`."""
        check_user_id(user_id)
        require_activity(self._store)
        erasure_id = erasure.new_id()
        # Written down first: a restore of an older copy must know of every erasure there was.
        self._ledger.audit_event(actor(), "erase", {"erasure_id": erasure_id})
        # Events of the user that were received before are written before, and none is meanwhile.
        receipt = self._intake.alone(
            lambda: erasure.erase(
                self._store,
                self._keys.pseudonymizer().one(user_id),
                clock=self._calendar.clock,
                erasure_id=erasure_id,
            )
        )
        if self._metrics is not None:
            self._metrics.erasures.inc()
        return receipt

    def receipt(self, erasure_id: str) -> ErasureReceipt:
        """See `Verbs.erasure`."""
        return self._store.receipt(erasure_id)

    def flush(self, folder: DataDir) -> Flushed:
        """Finishes every outstanding physical removal; charges and publishes nothing.

        Raises:
            StoreUnavailableError: Another process writes or reads the store; retry.
        """
        before, opened = self._store.stats().bytes_on_disk, self._store.open_months()
        self._releaser.end_what_is_over()
        self._store.live.end(self._calendar.today())
        self._store.flush()
        leftovers = remove_leftovers(folder)
        still = self._store.open_months()
        return Flushed(
            months_ended=tuple(month for month in opened if month not in still),
            leftovers=tuple(leftovers),
            bytes_before=before,
            bytes_after=self._store.stats().bytes_on_disk,
        )

    def prove(self, folder: DataDir, user_id: str | None = None) -> Proof:
        """Reads every byte under the data directory; changes nothing. To be called after `flush`.

        Guarantee:
            Without a finding, each store is sound and holds nothing but what counts; and no file
            holds the user: neither the id, if it has `USER_ID_BYTES_MIN` bytes or more, nor a
            pseudonym of the user under a live key, but for tombstones of open plans.
        """
        names: Sequence[int] = ()
        if user_id is not None:
            check_user_id(user_id)
            names = self._keys.pseudonymizer().one(user_id)
        stores = {
            store: residue.inspect(store, store_key=self._keys.store_key(), names=names)
            for store in (folder.activity, *_copies(folder))
        }
        paths = [path for path in sorted(folder.root.rglob("*")) if path.is_file()]
        own = frozenset() if user_id is None else _needles_of_id(user_id)
        in_clear = self._keys.store_key() is None
        found = _found(paths, stores, own, names, in_clear=in_clear)
        return Proof(
            stores=tuple(str(store) for store in stores),
            files=len(paths),
            bytes=sum(path.stat().st_size for path in paths),
            rows=sum(one.rows for one in stores.values()),
            keys_searched=None if user_id is None else len(names),
            id_searched=bool(own),
            found=tuple(found),
            user_tombstones=tuple(sorted(stores[folder.activity].plans_found)),
            problems=tuple(
                f"{store}/{one}" for store, findings in stores.items() for one in findings.problems
            ),
            kept=tuple(self._kept(one) for one in stores[folder.activity].kept),
            unread=tuple(str(path) for path in paths if is_sealed(path)),
        )

    def _kept(self, kept: Kept) -> KeptNow:
        """What is kept for a plan, with what the clock says of it."""
        through = kept.tombstone.through
        return KeptNow(
            kept_for=kept.tombstone.kept_for,
            through=through,
            pseudonyms=kept.pseudonyms,
            overdue=self._calendar.closes_at(through) <= self._calendar.clock(),
        )


def _copies(folder: DataDir) -> Iterator[Path]:
    """The activity stores of backups, wherever in the data directory they lie."""
    for path in sorted(folder.root.rglob(MANIFEST)):
        if path.parent != folder.activity:
            yield path.parent


def _needles_of_id(user_id: str) -> frozenset[bytes]:
    """The forms in which a user id could be written; none where it is too short to look for."""
    raw = user_id.encode()
    if len(raw) < USER_ID_BYTES_MIN:
        return frozenset()
    return frozenset({raw, json.dumps(user_id)[1:-1].encode()})


def _found(
    paths: Sequence[Path],
    stores: Mapping[Path, Findings],
    own: frozenset[bytes],
    names: Sequence[int],
    *,
    in_clear: bool,
) -> Iterator[str]:
    """Where a user was found: rows of the stores, and bytes that are no tombstone."""
    allowed: dict[tuple[Path, int], int] = {}
    for store, findings in stores.items():
        yield from (f"{store}/{one} row" for one in findings.rows_found)
        for (place, index), count in findings.tombstones_found.items():
            path = store / (place if place == MANIFEST else f"{SEGMENTS}/{place}")
            allowed[path, index] = count if in_clear else 0
    for path in paths:
        if own and residue.occurrences(path, own):
            yield f"{path}: the user id"
        for index, name in enumerate(names):
            if residue.occurrences(path, residue.needles_of(name)) > allowed.get((path, index), 0):
                yield f"{path}: the pseudonym under live key {index + 1}"
