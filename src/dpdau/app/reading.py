"""Events that are counted in a thread of their own, while the rest of the product starts.

Nothing heavy may be imported here: what this module needs is what the counting waits for.
"""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from dpdau.app.rules import ingest_rules, system_clock
from dpdau.domain import WAU_WINDOW_DAYS, Clock, Op, Segment
from dpdau.errors import InvalidSettingError
from dpdau.ingest.event_file import Counted, EventFile, MonthSpan
from dpdau.ingest.rules import Fields, Rules
from dpdau.ledger.peek import may_have_plan
from dpdau.settings import Settings

if TYPE_CHECKING:
    from dpdau.ingest.warehouse import Place, Warehouse

EPSILON_MAX: Final = 50
DELTA_MAX: Final = Decimal("1e-3")
_STOP_SECONDS: Final = 0.1


class Counting(Protocol):
    """Something that counts a month once, as `EventFile` does: a file, or a table elsewhere."""

    def count(self) -> Counted:
        """Counts; raises what its kind raises."""

    def progress(self) -> tuple[float, int]:
        """The share that is done, 0..1, and how many rows that is; for another thread."""

    def stop(self) -> None:
        """Ends the counting with an error; for another thread."""


class Events(Protocol):
    """Where events are, and how to read them."""

    @property
    def name(self) -> str:
        """What they are called, to be shown."""

    def may_be_there(self) -> bool:
        """Whether it is worth while to begin before anything else is known."""

    def open(self, rules: Rules, span: MonthSpan) -> Counting:
        """What will count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of events, and how to read it; `file_format` is told by the name unless given."""

    path: Path
    file_format: str | None = None
    fields: Fields = field(default_factory=Fields)
    op_default: Op | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    def may_be_there(self) -> bool:
        """Whether there is a file."""
        return self.path.is_file()

    def open(self, rules: Rules, span: MonthSpan) -> Counting:
        """The file; raises what `EventFile` does."""
        own = replace(rules, fields=self.fields, op_default=self.op_default)
        return EventFile(self.path, rules=own, span=span, file_format=self.file_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """Events that an engine is asked about; `order` is the column that says which came first."""

    place: "Place"
    order: str | None = None
    fields: Fields = field(default_factory=Fields)
    op_default: Op | None = None

    @property
    def name(self) -> str:
        """The name of the table or the files, without the address."""
        return self.place.name

    def may_be_there(self) -> bool:
        """Only asking for it shows."""
        return True

    def open(self, rules: Rules, span: MonthSpan) -> "Warehouse":
        """The table; it is not connected to before it is counted."""
        from dpdau.ingest.warehouse import Warehouse

        own = replace(rules, fields=self.fields, op_default=self.op_default)
        return Warehouse(self.place, rules=own, span=span, order=self.order)


class Reading:
    """Events of one source, counted for one month once somebody wants it."""

    def __init__(
        self, settings: Settings, month: str, source: Events, *, clock: Clock = system_clock
    ) -> None:
        self._settings, self._source = settings, source
        self._rules = ingest_rules(settings, clock().astimezone(settings.zone).date())
        self._span = MonthSpan(
            month,
            (1, WAU_WINDOW_DAYS, settings.MAU_WINDOW_DAYS),
            tuple(Segment.parse(text) for text in settings.PLAN_SEGMENTS),
        )
        self._counter: Counting | None = None
        self._counting: Future[Counted] | None = None

    @property
    def rules(self) -> Rules:
        """What is taken."""
        return self._rules

    @property
    def span(self) -> MonthSpan:
        """What is counted."""
        return self._span

    def start_early(self) -> None:
        """Starts where the ledger certainly has no plan yet that would make it unnecessary.

        That changes when the counting begins and nothing else: whether a charge is made, and
        refused, is decided in the ledger.
        """
        if self._source.may_be_there() and not may_have_plan(
            self._settings.ledger_url, f"plan-{self._span.month}"
        ):
            self.start()

    def start(self) -> None:
        """Starts, unless it did.

        Raises:
            NotFoundError, UnsupportedMediaError: The file cannot be opened.
        """
        if self._counting is not None:
            return
        self._counter = self._source.open(self._rules, self._span)
        self._counting = Future()
        # Not every engine can be told to stop; a process that gives up must not wait for it.
        threading.Thread(target=self._count, name="count", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Waits for so long, or until the counting ends; says whether it ended."""
        from concurrent.futures import wait

        assert self._counting is not None, "it was started"
        return bool(wait([self._counting], timeout=seconds).done)

    def progress(self) -> tuple[float, int]:
        """The share that is done, 0..1, and how many rows that is."""
        assert self._counter is not None, "it was started"
        return self._counter.progress()

    def counted(self) -> Counted | None:
        """What the events add up to, private; None where nobody wanted it. Waits for the end.

        Raises:
            What `EventFile.count` or `Warehouse.count` raises.
        """
        return None if self._counting is None else self._counting.result()

    def close(self) -> None:
        """Ends the counting, and waits until it has ended; may be called twice.

        An engine that cannot be told to stop goes on to the end of its query. Whoever interrupts
        this wait leaves it alone with that: nothing is charged.
        """
        if self._counter is not None and self._counting is not None:
            self._counter.stop()
            # A stop that comes between two statements of the engine ends neither of them.
            while not self.wait(_STOP_SECONDS):
                self._counter.stop()

    def _count(self) -> None:
        """Counts, and tells whoever waits."""
        assert self._counter is not None and self._counting is not None, "it was started"
        try:
            counted = self._counter.count()
        except BaseException as error:  # noqa: BLE001 - whoever waits has it raised
            self._counting.set_exception(error)
        else:
            self._counting.set_result(counted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def with_terms(settings: Settings, *, epsilon: Decimal | None, delta: Decimal | None) -> Settings:
    """The settings with another price of a month plan.

    Raises:
        InvalidSettingError: It is out of the range that the settings have.
    """
    if epsilon is not None and not 0 < epsilon <= EPSILON_MAX:
        raise InvalidSettingError(f"Expected 0 < epsilon <= {EPSILON_MAX}, found {epsilon}.")
    if delta is not None and not 0 < delta <= DELTA_MAX:
        raise InvalidSettingError(f"Expected 0 < delta <= {DELTA_MAX}, found {delta}.")
    changes = {"PLAN_EPSILON": epsilon, "PLAN_DELTA": delta}
    given = {name: value for name, value in changes.items() if value is not None}
    return settings.model_copy(update=given)
