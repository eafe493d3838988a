"""Fixes, counts and ends months: the part of the embedded store behind month plans."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.access import StoreAccess
from dpdau.activity.held import HELD, PlanMonth
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import LABELS
from dpdau.activity.masks import MASKS
from dpdau.activity.month_verbs import Code, MonthVerbs
from dpdau.activity.month_view import MonthView
from dpdau.activity.upkeep import Upkeep
from dpdau.domain import Clock


class Months(MonthVerbs[Upkeep]):
    """The month verbs over segment files."""

    def __init__(self, access: StoreAccess, clock: Clock) -> None:
        super().__init__(access, clock)
        self._access = access

    def _fix(
        self,
        writer: Upkeep,
        month: PlanMonth,
        day: int,
        *,
        dimensions: Sequence[int],
        also: Callable[[], None],
    ) -> None:
        """Stores the plan labels of the newcomers; what is held comes with later events."""
        with writer.changing() as change:
            if dimensions:
                fixed = self._access.read(
                    (MASKS, LABELS, HELD),
                    lambda state: MonthView(state, month).plan_labels(day, dimensions),
                )
                writer.add(change, LABELS, fixed)
        writer.commit(change, also)

    def _count(
        self,
        checked: Callable[[Sequence[PlanMonth]], PlanMonth],
        day: int,
        *,
        window_days: Sequence[int],
        codes: Sequence[Code | None],
    ) -> NDArray[np.int64]:
        """Counts the view of the month in one snapshot."""

        def count(state: Snapshot) -> NDArray[np.int64]:
            return MonthView(state, checked(state.months)).counts(day, window_days, codes)

        return self._access.read((MASKS, LABELS, HELD) if codes else (MASKS, HELD), count)

    def _drop(self, writer: Upkeep, month: PlanMonth, also: Callable[[], None]) -> None:
        """Rewrites every file with a row of the month."""
        writer.drop_month(month, self._clock(), also)
