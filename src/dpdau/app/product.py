"""`App`: the object graph over one data directory, and the verbs on it."""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dpdau import plan as promises
from dpdau.activity.store import ActivityStore
from dpdau.app.answers import Answers, budget_name, grantable
from dpdau.app.callers import Callers
from dpdau.app.erasures import Erasures
from dpdau.app.growth import Growth
from dpdau.app.intake import Intake
from dpdau.app.keys import Keys, hold
from dpdau.app.live import Live
from dpdau.app.months import Months
from dpdau.app.retention import Retention
from dpdau.app.singles import Singles
from dpdau.app.wiring import (
    StrategyShelf,
    checked_terms,
    open_keyring,
    open_ledger,
    open_store,
    report_terms,
    secret_of,
    sketch_impl,
    system_clock,
)
from dpdau.datadir import DataDir
from dpdau.domain import (
    Answer,
    BudgetBlock,
    Caller,
    Clock,
    ErasureReceipt,
    GrowthAnswer,
    Metric,
    MonthQuote,
    MonthStatus,
    Quote,
    Release,
    Segment,
    SeriesView,
    SupportsClose,
    acting,
    actor,
    check_range,
    month_of,
)
from dpdau.errors import InvalidPlanError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, Rules
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.statement import Statements
from dpdau.mechanisms.matrix.covariance import Progress
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise
from dpdau.plan import Question
from dpdau.release import Calendar, MonthReleaser, NoiseDesk, Releaser
from dpdau.settings import Settings
from dpdau.telemetry import Metrics

PAGE_MAX: Final = 1000
SCHEDULE: Final = "schedule"
"""Who acts where nobody asked: the clock."""


class App:
    """The product in one process: a data directory, its store, its ledger and its keys."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ActivityStore,
        ledger: Ledger,
        keys: Keys,
        noise: NoiseSource,
        clock: Clock,
        held: list[SupportsClose],
        strategies: StrategyShelf,
        desk: NoiseDesk | None = None,
        opening: bool = True,
        metrics: Metrics | None = None,
        unsafe_debug: bool = False,
        reported: bool = True,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.metrics = metrics
        self._store = store
        self._held = held
        self._unsafe_debug = unsafe_debug
        self._opening = opening and settings.RELEASE_POLICY == "plan"
        self._terms = checked_terms(settings)
        self.calendar = Calendar(
            zone=settings.zone,
            grace_hours=settings.GRACE_HOURS,
            clock=clock,
            retention_days=settings.RETENTION_DAYS,
            splits=keys.splits,
        )
        self.keys = keys
        self._retention = Retention(store, self.calendar, settings.RETENTION_DAYS)
        self.intake = Intake(
            settings,
            store=store,
            keys=keys,
            calendar=self.calendar,
            before=self._retention.purge_if_due,
        )
        self.attach(self.intake)
        self.callers = Callers(settings.SERVICE_API_KEY, ledger.keys, clock)
        self.attach(self.callers)
        self._statements = Statements(ledger, report_terms(settings), reported=reported)
        self._answers = Answers(self._statements, self._terms, metrics)
        self._strategies = strategies
        self._singles = Singles(
            Releaser(
                store=store,
                ledger=ledger,
                noise=noise,
                terms=self._terms,
                calendar=self.calendar,
                sketch_impl=sketch_impl(settings),
            ),
            ledger,
            self._statements,
        )
        self._growth = Growth(self._singles, settings.TIMEZONE, metrics)
        self.months = Months(
            MonthReleaser(
                store=store,
                ledger=ledger,
                desk=desk or NoiseDesk(noise),
                terms=self._terms,
                calendar=self.calendar,
                strategies=strategies,
                segments=tuple(Segment.parse(text) for text in settings.PLAN_SEGMENTS),
                sketch_impl=sketch_impl(settings),
            ),
            ledger,
            self._statements,
        )
        self.erasures = Erasures(
            self.months.releaser, intake=self.intake, keys=self.keys, metrics=metrics
        )
        self.live = Live.beside(self.months, settings.LIVE_TICKS, opening=opening)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        clock: Clock = system_clock,
        noise: NoiseSource | None = None,
        desk: NoiseDesk | None = None,
        progress: Progress | None = None,
        opening: bool = True,
        serve_at: str | None = None,
        alone: bool = False,
        read_only: bool = False,
        metrics: Metrics | None = None,
        unsafe_debug: bool = False,
        reported: bool = True,
    ) -> Self:
        """Builds the object graph over `DATA_DIR`.

        Args:
            settings: The loaded settings.
            clock: What time it is.
            noise: The noise source; the operating system's by default.
            desk: Who draws the noise of month plans; one over `noise` by default.
            progress: Hears of a strategy that is being solved.
            opening: Whether `take_due` opens the plan of a new month; a demo of old data has none.
            serve_at: The URL of the service that will own the directory; None for a command.
            alone: Refuses to share the directory with other commands.
            read_only: Only reads the activity store, beside whoever writes, and takes no hold; the
                ledger takes writers from any process.
            metrics: Counters to keep, where someone reads them.
            unsafe_debug: Puts the exact count beside each release; never for a real service.
            reported: False leaves the reported figures of budget blocks out, which take seconds.

        Raises:
            InvalidSettingError: There is no usable secret.
            DataDirInUseError: A service owns the directory.
            IntegrityError: What is stored contradicts itself, or the secret is another one.
        """
        secret = secret_of(settings)
        folder = DataDir(settings.DATA_DIR).create()
        held: list[SupportsClose] = []
        owned = False
        try:
            if not read_only:
                use, owned = hold(folder, settings, clock=clock, serve_at=serve_at, alone=alone)
                held.append(use)
            keyring = open_keyring(folder, secret, clock=clock)
            store = open_store(folder, keyring, settings, clock=clock, read_only=read_only)
            held.append(store)
            ledger = open_ledger(settings, folder, store, clock=clock, metrics=metrics)
            held.append(ledger)
            keys = Keys(
                keyring,
                settings,
                clock=clock,
                owned=folder if owned else None,
                ledger=ledger,
                store=None if read_only else store,
            )
            app = cls(
                settings=settings,
                store=store,
                ledger=ledger,
                keys=keys,
                noise=noise or OpenDPNoise(),
                clock=clock,
                held=held,
                strategies=StrategyShelf(
                    folder.strategies, solving=serve_at is None, progress=progress
                ),
                desk=desk,
                opening=opening,
                metrics=metrics,
                unsafe_debug=unsafe_debug,
                reported=reported,
            )
            keys.tend()
            if serve_at:
                app._retention.purge_if_due()
            return app
        except BaseException:
            _close_all(held)
            raise

    def ingest(
        self, decoded: Decoded | DecodedTable, *, batch_id: str | None = None
    ) -> IngestReport:
        """See `Verbs.ingest`."""
        return self.intake.submit(decoded, batch_id=batch_id).result()

    def rules(self) -> Rules:
        """What an event must be today, for the readers of `ingest`."""
        return self.intake.rules()

    def price(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Quote:
        """See `Verbs.price`."""
        asked = self._question(metric, day, window_days, segment)
        if not fresh and self._is_planned(asked):
            return self.months.quote(asked)
        return self._singles.quote(asked)

    def release(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Answer:
        """See `Verbs.release`."""
        asked = self._question(metric, day, window_days, segment)
        if not fresh and self._is_planned(asked):
            release, replayed = self.months.answer(asked)
        else:
            release, replayed = self._singles.answer(asked, fresh=fresh)
        exact = None
        if self._unsafe_debug:
            windows = {metric: asked.window.days}
            table = self.exact(windows, day, day, segment=segment, reason="unsafe-debug")
            exact = int(table[metric][0])
        return self._answers.of(release, replayed=replayed, exact=exact)

    @property
    def is_quick(self) -> bool:
        """Whether the ledger is read in milliseconds, so that an event loop may do it."""
        return self.ledger.is_local

    def stored(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
    ) -> Answer | None:
        """What `release` answers where that takes milliseconds, as it was told before, or None."""
        if self._unsafe_debug or not self.is_quick:
            return None
        asked = self._question(metric, day, window_days, segment)
        known = self.ledger.find_release(metric, asked.window, segment)
        return None if known is None else self._answers.at_once(known)

    def growth(
        self, day: dt.date, *, window_days: int | None = None, fresh: bool = False
    ) -> GrowthAnswer:
        """See `Verbs.growth`."""
        return self._growth.answer(day, window_days, fresh=fresh)

    def series(
        self,
        metrics: Sequence[Metric],
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        view: SeriesView = SeriesView.RAW,
    ) -> list[Answer]:
        """See `Verbs.series`."""
        check_range(first, last)
        blocks: dict[str, BudgetBlock] = {}
        answers = []
        for release in self.months.series(metrics, first, last, segment, view):
            budget = self._answers.budget_of(release)
            if budget.budget_id not in blocks:
                blocks[budget.budget_id] = self._statements.block(budget)
            answers.append(Answer(release, replayed=True, budget=blocks[budget.budget_id]))
        return answers

    def price_month(self, month: str) -> MonthQuote:
        """See `Verbs.price_month`."""
        return self.months.price(month)

    def open_month(self, month: str) -> MonthStatus:
        """See `Verbs.open_month`."""
        return self.months.open(month)

    def month(self, month: str) -> MonthStatus:
        """See `Verbs.month`."""
        return self.months.status(month)

    def abandon_month(self, month: str, *, reason: str) -> MonthStatus:
        """Gives up the rest of a month plan; its other days can be bought on demand."""
        return self.months.abandon(month, reason)

    def take_due(self) -> int:
        """Takes the tick that is due and all closed days of open plans; drops what is not kept.

        Gives how many numbers were released. Under `RELEASE_POLICY=plan` the plan of the newest
        closed day is opened first, whatever is in the store: a charge must not depend on people.
        """
        with acting(SCHEDULE):
            try:
                released = self.live.take_due()
            finally:
                try:
                    days = self.months.take_due(opening=self._opening)
                finally:
                    self._retention.purge_if_due()
                    self.keys.tend()
            return released + days

    def next_due(self) -> dt.datetime:
        """When the next day closes, or the next tick of the live counter is due."""
        following = self.calendar.last_closed_day() + dt.timedelta(days=1)
        return self.live.next_due(otherwise=self.calendar.closes_at(following))

    def budget(self, metric: str, day: dt.date | None = None) -> BudgetBlock:
        """See `Verbs.budget`."""
        period = month_of(day or self.calendar.today())
        if metric == promises.LIVE:
            return self.live.budget(period)
        return self._statements.block(promises.budget(budget_name(metric), period, self._terms))

    def erase(self, user_id: str) -> ErasureReceipt:
        """See `Verbs.erase`."""
        return self.erasures.erase(user_id)

    def erasure(self, erasure_id: str) -> ErasureReceipt:
        """See `Verbs.erasure`."""
        return self.erasures.receipt(erasure_id)

    def exact(
        self,
        windows: dict[Metric, int],
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        reason: str,
    ) -> dict[Metric, NDArray[np.int64]]:
        """Exact, private counts for each day of a range; recorded in the audit log before.

        Returns:
            metric → (days,) int64.
        """
        check_range(first, last)
        self.ledger.audit_event(
            actor(),
            "exact_read",
            {
                "metrics": {metric.value: days for metric, days in windows.items()},
                "from": first.isoformat(),
                "to": last.isoformat(),
                "segment": None if segment is None else str(segment),
                "reason": reason,
            },
        )
        table = self._store.counts(
            first=first, last=last, window_days=list(windows.values()), segment=segment
        )
        return dict(zip(windows, table, strict=True))

    def releases(self, *, after: str | None, limit: int) -> tuple[list[Release], str | None]:
        """One page of the release log, oldest first, and the cursor of the next."""
        return self.ledger.releases(after=after, limit=min(limit, PAGE_MAX))

    def plans(self, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """One page of the opened plans with their charges, and the cursor of the next."""
        return self.ledger.plans(after=after, limit=min(limit, PAGE_MAX))

    def authenticate(self, text: str | None) -> Caller:
        """See `Callers.identify`."""
        return self.callers.identify(text)

    def grant(self, metric: str, day: dt.date, *, reason: str, grant_id: str = "") -> BudgetBlock:
        """Grants the month of a day one more allowance; what was spent stays visible."""
        name = grantable(metric)
        month = month_of(day)
        self.ledger.grant(name, month, actor=actor(), reason=reason, grant_id=grant_id)
        return self.budget(metric, day)

    def prepare(self) -> None:
        """Solves the strategies that a plan needs, where they are not shipped; takes a minute."""
        if self.settings.RELEASE_POLICY == "plan":
            self._strategies.fill(self._terms.mau_window_days)

    def warm_up(self) -> None:
        """Loads what a first release would wait for; charges nothing, publishes nothing."""
        today = self.calendar.today()
        for metric in Metric:
            asked = self._question(metric, today, None, None)
            plan = promises.on_demand(asked, edition=0, terms=self._terms)
            self._statements.report([plan.charge.dp_event], self.settings.exact("DELTA"))
        self._singles.warm_up()

    def check_ready(self) -> None:
        """Proves that the store and the ledger can write now, and events come in.

        Raises:
            DpdauError: One of them cannot, or they do not.
        """
        self._store.check_writable()
        self.ledger.check_writable()
        self.intake.check_ready()

    def attach(self, one: SupportsClose) -> None:
        """Has something closed with the app, before everything that the app holds."""
        self._held.append(one)

    def close(self) -> None:
        """Gives everything back; may be called twice."""
        _close_all(self._held)

    @contextmanager
    def closing(self) -> Iterator[Self]:
        """The app for the length of a `with` block."""
        try:
            yield self
        finally:
            self.close()

    def _question(
        self, metric: Metric, day: dt.date, window_days: int | None, segment: Segment | None
    ) -> Question:
        if segment is not None and segment.dimension not in self.settings.DIMENSIONS:
            known = ", ".join(self.settings.DIMENSIONS) or "none is declared"
            raise InvalidPlanError(f"Expected a segment of a declared dimension ({known}).")
        return promises.question(
            metric,
            day,
            window_days=window_days,
            segment=segment,
            timezone=self.settings.TIMEZONE,
            terms=self._terms,
        )

    def _is_planned(self, asked: Question) -> bool:
        """Whether the policy has the month's plan answer."""
        return self.settings.RELEASE_POLICY == "plan" and self.months.covers(asked)


def _close_all(held: Sequence[SupportsClose]) -> None:
    for one in reversed(held):
        one.close()
