"""A month from a file: no store, no keys, no pseudonyms; only the ledger of `DATA_DIR`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dpdau.app.months import quoted
from dpdau.app.reading import Reading
from dpdau.app.rules import system_clock
from dpdau.app.wiring import (
    StrategyShelf,
    known_ledger,
    may_be_new,
    report_terms,
    sketch_impl,
    terms,
)
from dpdau.datadir import DataDir
from dpdau.domain import Answer, Clock, MonthQuote, Release, Segment, month_of
from dpdau.ingest.event_file import Counted
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.statement import Statements
from dpdau.mechanisms.matrix.covariance import Progress
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise
from dpdau.plan import MonthPlan
from dpdau.release.calendar import Calendar
from dpdau.release.noise import NoiseDesk
from dpdau.release.one_shot import OneShotReleaser
from dpdau.settings import Settings

DRAW_SECONDS: Final = 0.05
"""The clock on which the noise of a month is given out here: ten times what drawing takes."""

Watching = Callable[[Reading], None]
"""Is called while a file is counted, and returns when it is."""


@dataclass(frozen=True, slots=True)
class OneShotAnswer:
    """The releases of a month; `counted` is what was read for them, private, or None if nothing."""

    answers: tuple[Answer, ...]
    counted: Counted | None

    @property
    def replayed(self) -> bool:
        """Whether the releases were stored before: nothing was charged now."""
        return self.answers[0].replayed


class OneShot:
    """The ledger of a data directory, to release months of files into."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock = system_clock,
        noise: NoiseSource | None = None,
        desk: NoiseDesk | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Opens the ledger.

        Args:
            settings: The loaded settings; no secret is needed, for there are no pseudonyms.
            clock: What time it is.
            noise: The noise source; the operating system's by default.
            desk: Who draws the noise; one over `noise` by default.
            progress: Hears of a strategy that is being solved.

        Raises:
            IntegrityError: What is stored contradicts itself.
            UnavailableError: The ledger cannot be read or written.
        """
        self._settings = settings
        self._calendar = Calendar(
            zone=settings.zone,
            grace_hours=settings.GRACE_HOURS,
            clock=clock,
            retention_days=settings.RETENTION_DAYS,
        )
        folder = DataDir(settings.DATA_DIR).create()
        self._ledger = _open_ledger(settings, folder, clock)
        self._releaser = OneShotReleaser(
            ledger=self._ledger,
            desk=desk or NoiseDesk(noise or OpenDPNoise(), seconds=DRAW_SECONDS),
            terms=terms(settings),
            calendar=self._calendar,
            strategies=StrategyShelf(folder.strategies, solving=True, progress=progress),
            segments=tuple(Segment.parse(text) for text in settings.PLAN_SEGMENTS),
            sketch_impl=sketch_impl(settings),
        )
        self._statements = Statements(self._ledger, report_terms(settings), reported=False)

    def price(self, month: str) -> MonthQuote:
        """What the numbers of a month cost and how precise they are; reads no file."""
        return quoted(
            self._releaser.promise(month),
            opened=self._releaser.find(month) is not None,
            ledger=self._ledger,
            statements=self._statements,
        )

    def release(self, reading: Reading, *, watch: Watching | None = None) -> OneShotAnswer:
        """The numbers of a month from a file, for one charge; or those that are stored already.

        Args:
            reading: The file, and the month, which has to be over and closed. Where the numbers
                are stored it is not started.
            watch: Shows how far the counting is.

        Returns:
            The releases day by day. Their budget blocks come without the reported figures, which
            take seconds: `dpdau budget plan` has them.

        Guarantee: `OneShotReleaser.release`.

        Raises:
            ReleaseNotReadyError: A day of the month has not closed.
            InvalidPlanError: The plan of the month is open and not at its end, or was opened with
                other terms.
            NotFoundError, UnsupportedMediaError, TooLargeError: The file cannot be read; nothing
                was charged.
            BudgetExhaustedError: The charge does not fit.
        """
        month, windows = reading.span.month, reading.span.windows
        known = self._releaser.replay(month)
        if known is not None:
            return OneShotAnswer(self._answers(known, replayed=True), None)
        reading.start()

        def counting(plan: MonthPlan) -> NDArray[np.int64]:
            if watch is not None:
                watch(reading)
            counted = reading.counted()
            assert counted is not None, "it was started"
            return counted.table[:, :, [windows.index(plan.windows[one]) for one in plan.metrics]]

        made, replayed = self._releaser.release(month, counting)
        return OneShotAnswer(self._answers(made, replayed=replayed), reading.counted())

    def close(self) -> None:
        """Closes the ledger."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _answers(self, releases: Sequence[Release], *, replayed: bool) -> tuple[Answer, ...]:
        """Releases as they are handed out, with the state of the one budget they share."""
        plan = self._releaser.promise(month_of(releases[0].window.end))
        block = self._statements.block(plan.budget)
        return tuple(Answer(one, replayed=replayed, budget=block) for one in releases)


def _open_ledger(settings: Settings, folder: DataDir, clock: Clock) -> Ledger:
    """The ledger; a new one only where no activity was released that it would have to know.

    Raises:
        LedgerCorruptError: Days of the store were released, and the ledger is gone.
    """
    if may_be_new(settings, folder) and any(folder.activity.iterdir()):
        from dpdau.app.product import App

        # The store knows whether days were released, and it takes its keys to ask it.
        App.open(settings, clock=clock).close()
    return known_ledger(settings, folder, clock=clock)
