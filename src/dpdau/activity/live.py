"""Counts a day while it lasts: the part of the embedded store behind the live counter."""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping

import numpy as np

from dpdau.activity.access import StoreAccess
from dpdau.activity.held import HELD, parse_month
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import month_index
from dpdau.activity.manifest import Manifest
from dpdau.activity.masks import MASKS, days_mask, page_of
from dpdau.activity.month_view import looked_up
from dpdau.activity.runs import PARTS, Run, Table
from dpdau.activity.today import LiveMonth, LiveTurns, live_group, out_of
from dpdau.activity.upkeep import Upkeep
from dpdau.domain import Clock, day_number
from dpdau.errors import InvalidPlanError


class LiveDays:
    """The `LiveStore` of an embedded store, over its doors; see there for what it promises."""

    def __init__(self, access: StoreAccess, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._traces = False

    def open(self, month: str) -> None:
        """See `LiveStore.open`."""
        index = parse_month(month)
        with self._access.writing() as (manifest, _upkeep):
            known = manifest.live.month(index)
            if known is None:
                with manifest.writing():
                    manifest.live.put(_nothing(index, ended=False))
            elif known.ended:
                raise _ended(month)

    def begin(self, day: dt.date) -> None:
        """See `LiveStore.begin`."""
        number = day_number(day)
        with self._access.rewriting() as (manifest, upkeep):
            known = _open(manifest, day.isoformat()[:7])
            live = manifest.live.day()
            if live == number:
                return
            if number < max(live or number, known.first or number):
                raise InvalidPlanError(
                    f"Expected a day after those that were live, found {day.isoformat()}."
                )

            def also() -> None:
                _put_out(manifest)
                manifest.live.put(dataclasses.replace(known, day=number))

            self._drop(upkeep, number, also)

    def count(self, day: dt.date) -> int:
        """See `LiveStore.count`."""
        number = day_number(day)

        def active(state: Snapshot) -> int:
            if state.live != number:
                raise InvalidPlanError(f"Expected the live day, found {day.isoformat()}.")
            return _active(state, number)

        return self._access.read((MASKS, HELD), active)

    def advance(self, month: str, step: int) -> None:
        """See `LiveStore.advance`."""
        with self._access.writing() as (manifest, _upkeep), manifest.writing():
            manifest.live.put(dataclasses.replace(_open(manifest, month), step=step))

    def step(self, month: str) -> int | None:
        """See `LiveStore.step`."""
        with self._access.looking() as manifest:
            known = manifest.live.month(parse_month(month))
        return None if known is None else known.step

    def put_secret(self, month: str, body: bytes) -> bytes:
        """See `LiveStore.put_secret`."""
        name = _secret_name(parse_month(month))
        sealed = self._access.seal_secret(name, body)
        with self._access.writing() as (manifest, _upkeep):
            known = _open(manifest, month)
            if known.secret is not None:
                return self._access.open_secret(name, known.secret)
            with manifest.writing():
                manifest.live.put(dataclasses.replace(known, secret=sealed))
            return body

    def secret(self, month: str) -> bytes | None:
        """See `LiveStore.secret`."""
        index = parse_month(month)
        with self._access.looking() as manifest:
            known = manifest.live.month(index)
        if known is None or known.secret is None:
            return None
        return self._access.open_secret(_secret_name(index), known.secret)

    def end(self, before: dt.date) -> None:
        """See `LiveStore.end`."""
        with self._access.looking() as manifest:
            opened, live = manifest.live.months(), manifest.live.day()
        first, limit = month_index(before), day_number(before)
        over = [one for one in opened if one.month < first and not one.ended]
        is_over = live is not None and live < limit
        if not (over or is_over or self._traces):
            return
        with self._access.rewriting() as (manifest, upkeep):

            def also() -> None:
                if is_over:
                    _put_out(manifest)
                for one in over:
                    manifest.live.put(_nothing(one.month, ended=True))

            self._drop(upkeep, None if is_over else live, also)

    def _drop(self, upkeep: Upkeep, kept: int | None, also: Callable[[], None]) -> None:
        """Drops who is out of another day than one, with further statements."""
        # A reader may keep the log from being emptied: then the next `end` tries again.
        self._traces = True
        upkeep.drop_live(kept, self._clock(), also)
        self._traces = False


def left_by(state: Snapshot, moved: Mapping[Table, Run], turns: LiveTurns) -> Run:
    """The rows that keep those out of the live day from whom some events take it.

    Args:
        state: A snapshot with masks, without the events.
        moved: Rows that come between the two.
        turns: What the events do to the live day.
    """
    if state.live is None:
        return {}
    page, keys = page_of(state.live), turns.first_left
    true = looked_up(state, moved, MASKS, keys, group=page)
    if true is None:
        return out_of(state.live, turns.left)
    active = (true.values[0] & days_mask(page, state.live, state.live)) != 0
    return out_of(state.live, np.union1d(turns.left, true.key[active]))


def _active(state: Snapshot, day: int) -> int:
    """How many users are active on the live day and not out of it."""
    page, total = page_of(day), 0
    for part in range(PARTS):
        rows = state.net(MASKS, part, page)
        if rows is not None:
            keys = rows.key[(rows.values[0] & days_mask(page, day, day)) != 0]
            out = state.net(HELD, part, live_group(day))
            total += len(keys)
            if out is not None:
                gone = out.key[out.values[1] != 0]
                total -= int(np.isin(keys, gone, assume_unique=True).sum())
    return total


def _put_out(manifest: Manifest) -> None:
    """No day is live from here on, and the one that was never again: who left it is forgotten."""
    for one in manifest.live.months():
        if one.day is not None:
            manifest.live.put(dataclasses.replace(one, day=None, first=one.day + 1))


def _nothing(month: int, *, ended: bool) -> LiveMonth:
    """A month of which nothing is kept."""
    return LiveMonth(month, day=None, first=None, step=None, ended=ended, secret=None)


def _open(manifest: Manifest, month: str) -> LiveMonth:
    """A month that was opened and not ended.

    Raises:
        InvalidPlanError: It was not opened, or it was ended.
    """
    known = manifest.live.month(parse_month(month))
    if known is None:
        raise InvalidPlanError(f"Expected a live month, found {month}, which was not opened.")
    if known.ended:
        raise _ended(month)
    return known


def _ended(month: str) -> InvalidPlanError:
    """The error for a month that was ended."""
    return InvalidPlanError(f"Expected a live month, found {month}, which was ended.")


def _secret_name(index: int) -> str:
    """The name under which the secret of a month is sealed."""
    return f"manifest:live-secret:{index}"
