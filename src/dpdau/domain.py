"""The frozen nouns of the product and their own validity, with no I/O.

Days are `datetime.date` where people see them and int32 *day numbers* (days since 1970-01-01, the
zone of `TIMEZONE` already applied) in columns.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from dpdau.errors import InvalidPlanError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW_DAYS_MAX: Final = 64
WAU_WINDOW_DAYS: Final = 7
WINDOW_END_MIN: Final = dt.date(1900, 1, 1)
WINDOW_END_MAX: Final = dt.date(9998, 12, 31)
BATCH_ROWS_MAX: Final = 5_000_000
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()

Clock = Callable[[], dt.datetime]
"""What time it is, as an aware UTC datetime; passed in by `app`."""


def day_number(day: dt.date) -> int:
    """Days since 1970-01-01.

    Example:
        >>> day_number(dt.date(1970, 1, 2))
        1
    """
    return day.toordinal() - _EPOCH


def day_date(number: int) -> dt.date:
    """The inverse of `day_number`.

    Example:
        >>> day_date(-1).isoformat()
        '1969-12-31'
    """
    return dt.date.fromordinal(int(number) + _EPOCH)


def parse_day(text: str) -> dt.date:
    """Reads YYYY-MM-DD, and nothing else that could be taken for a day.

    Raises:
        InvalidPlanError: It is no such day.

    Example:
        >>> parse_day("2026-02-03")
        datetime.date(2026, 2, 3)
    """
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or text != day.isoformat():
        raise InvalidPlanError("Expected a day as YYYY-MM-DD, found something else.")
    return day


def month_of(day: dt.date) -> str:
    """The calendar month of a day, the period of every budget.

    Example:
        >>> month_of(dt.date(2026, 2, 3))
        '2026-02'
    """
    return f"{day.year:04d}-{day.month:02d}"


class Op(StrEnum):
    """What an event does to the pair (user, day)."""

    ADD = "+"
    REMOVE = "-"


class Metric(StrEnum):
    """A published count: distinct users active in a trailing window."""

    DAU = "dau"
    WAU = "wau"
    MAU = "mau"


class Unit(StrEnum):
    """The privacy unit: what is added or removed between neighbors."""

    USER = "user"


class Scope(StrEnum):
    """What an API key may do; `admin` implies every other scope."""

    INGEST = "ingest"
    READ = "read"
    RELEASE = "release"
    ERASE = "erase"
    ADMIN = "admin"


class NeighboringRelation(StrEnum):
    """How two neighboring streams differ."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One value of one declared dimension, written `platform=ios`."""

    dimension: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `dimension=value`.

        Raises:
            InvalidPlanError: The text has no `=` or an empty side.

        Example:
            >>> Segment.parse("platform=ios")
            Segment(dimension='platform', value='ios')
        """
        dimension, found, value = text.partition("=")
        if not (dimension and found and value):
            raise InvalidPlanError(f"Expected a segment as dimension=value, found {text!r}.")
        return cls(dimension, value)

    def __str__(self) -> str:
        return f"{self.dimension}={self.value}"


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The `days` days that end at `end`, both ends included; 1 ≤ days ≤ 64, years 1900..9998."""

    end: dt.date
    days: int

    def __post_init__(self) -> None:
        if not 1 <= self.days <= WINDOW_DAYS_MAX:
            raise InvalidPlanError(
                f"Expected a window of 1..{WINDOW_DAYS_MAX} days, found {self.days}."
            )
        if not WINDOW_END_MIN <= self.end <= WINDOW_END_MAX:
            raise InvalidPlanError(
                f"Expected a day of {WINDOW_END_MIN.isoformat()}..{WINDOW_END_MAX.isoformat()}, "
                f"found {self.end.isoformat()}."
            )

    @property
    def start(self) -> dt.date:
        """The first day that counts."""
        return self.end - dt.timedelta(days=self.days - 1)


@dataclass(frozen=True, slots=True)
class Event:
    """One (pseudonym, day) pair put in or taken out: the scalar form of a row of `EventBatch`.

    Made only by `ingest.batch`; `event_id` is the sender's idempotency key, already hashed.
    """

    pseudonym: int
    op: Op
    day: int
    event_id: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """The values of one dimension for the rows of a batch.

    Shapes and units:
        codes: (n,) int32, an index into `values`, or -1 where the row has none.
    """

    values: tuple[str, ...]
    codes: "NDArray[np.int32]"


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Door 2: pseudonymous events in arrival order, as columns. Made only by `ingest.batch`.

    One event gives one row for each day that it touches; rows of one event share `event_index`.

    Shapes and units:
        pseudonym: (n,) uint64, under the current key epoch.
        aliases: (k, n) uint64, the same users under the k older live keys, newest first.
        day: (n,) int32 day numbers.
        add: (n,) bool, True for `+`.
        event_index: (n,) int32, non-decreasing ordinals 0..events-1.
        event_id: (events,) uint64 keyed hash of the sender's id, 0 where none was sent.
        labels: dimension → `Labels` over the n rows.
    """

    events: int
    pseudonym: "NDArray[np.uint64]"
    day: "NDArray[np.int32]"
    add: "NDArray[np.bool_]"
    event_index: "NDArray[np.int32]"
    event_id: "NDArray[np.uint64]"
    aliases: "NDArray[np.uint64]"
    labels: Mapping[str, Labels] = field(default_factory=dict)
    batch_id: str | None = None
    offsets: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.pseudonym.shape[0]
        assert n <= BATCH_ROWS_MAX, "a batch is split before it is built"
        assert self.day.shape == self.add.shape == self.event_index.shape == (n,)
        assert self.event_id.shape == (self.events,)
        assert self.aliases.ndim == 2 and self.aliases.shape[1] == n
        assert all(one.codes.shape == (n,) for one in self.labels.values())

    def __repr__(self) -> str:
        return f"EventBatch(events={self.events}, rows=<private>)"


@dataclass(frozen=True, slots=True)
class ContributionBounds:
    """How much one unit can change a count: the limits that a sensitivity rests on.

    `max_per_count` bounds |change of one count|; `max_active_steps` the number of releases of one
    plan that one unit can reach.
    """

    max_per_count: int = 1
    max_active_steps: int = 1


@dataclass(frozen=True, slots=True)
class BoundedCount:
    """Door 3: an exact count with each person's contribution bounded. Private.

    Made only by `aggregates`. It has no JSON form, and telemetry refuses it.
    """

    value: int
    bounds: ContributionBounds
    unit: Unit

    def __repr__(self) -> str:
        return f"BoundedCount(value=<private>, bounds={self.bounds}, unit={self.unit})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Release:
    """Door 5: a published number. Made only by `release`; immutable once committed.

    Shapes and units:
        estimate, lower_95, upper_95, noise_stddev: users. The estimate is unbiased and may be
        negative. The interval covers the exact count with probability ≥ 0.95 over the noise.
    """

    release_id: str
    plan_id: str
    step: int
    metric: Metric
    window: Window
    segment: Segment | None
    timezone: str
    estimate: int
    lower_95: int
    upper_95: int
    noise_stddev: float
    mechanism: str
    sketch_impl: str
    epsilon: float
    delta: float
    status: str
    version: str
    released_at: dt.datetime

    def __post_init__(self) -> None:
        assert self.lower_95 <= self.estimate <= self.upper_95
        assert self.epsilon > 0 and 0 <= self.delta < 1 and math.isfinite(self.noise_stddev)
        assert self.released_at.tzinfo is not None

    def to_json(self) -> dict[str, Any]:
        """The published fields: what the ledger stores and every front shows."""
        return {
            "metric": self.metric.value,
            "day": self.window.end.isoformat(),
            "window_days": self.window.days,
            "window_start": self.window.start.isoformat(),
            "window_end": self.window.end.isoformat(),
            "timezone": self.timezone,
            "segment": None if self.segment is None else str(self.segment),
            "estimate": self.estimate,
            "lower_95": self.lower_95,
            "upper_95": self.upper_95,
            "noise_stddev": self.noise_stddev,
            "epsilon_used": self.epsilon,
            "delta": self.delta,
            "mechanism": self.mechanism,
            "sketch_impl": self.sketch_impl,
            "released_at": self.released_at.isoformat(),
            "release_id": self.release_id,
            "plan_id": self.plan_id,
            "step": self.step,
            "status": self.status,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Reads back what `to_json` wrote; further keys of an answer are left alone."""
        segment = body["segment"]
        return cls(
            release_id=body["release_id"],
            plan_id=body["plan_id"],
            step=int(body["step"]),
            metric=Metric(body["metric"]),
            window=Window(dt.date.fromisoformat(body["window_end"]), int(body["window_days"])),
            segment=None if segment is None else Segment.parse(segment),
            timezone=body["timezone"],
            estimate=int(body["estimate"]),
            lower_95=int(body["lower_95"]),
            upper_95=int(body["upper_95"]),
            noise_stddev=float(body["noise_stddev"]),
            mechanism=body["mechanism"],
            sketch_impl=body["sketch_impl"],
            epsilon=float(body["epsilon_used"]),
            delta=float(body["delta"]),
            status=body["status"],
            version=body["version"],
            released_at=dt.datetime.fromisoformat(body["released_at"]),
        )


@dataclass(frozen=True, slots=True)
class BudgetBlock:
    """The state of one budget: what is enforced (cap, spent, remaining) and what is reported.

    What is reported takes seconds to compute for the first time in a process; where nobody looks
    at it, it is None.

    Shapes and units:
        epsilon_*: ε at `delta`, in the filter's own unit. Spent rounds up, remaining down.
        rdp_curve: (order, ε of that Rényi order at `reported_delta`) pairs.
        best_rdp_epsilon, pld_epsilon: at `reported_delta`, which is `delta` unless that is 0.
    """

    metric: str
    period: str
    filter: str
    epsilon_cap: float
    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    rdp_orders: tuple[int, ...]
    rdp_curve: tuple[tuple[int, float], ...]
    best_rdp_epsilon: float | None
    best_rdp_order: int | None
    advanced_epsilon: float | None
    advanced_delta: float
    pld_epsilon: float | None
    reported_delta: float
    rho_spent: str
    release_count: int
    policy: str

    def to_json(self) -> dict[str, Any]:
        """The budget block of the contract, section 8."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            **{
                **body,
                "rdp_orders": tuple(body["rdp_orders"]),
                "rdp_curve": tuple((int(order), float(cost)) for order, cost in body["rdp_curve"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A release as it is handed out: the stored number, and the state of its budget now.

    `exact_value` is private. It is None unless the service was started with `--unsafe-debug`.
    """

    release: Release
    replayed: bool
    budget: BudgetBlock
    exact_value: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer of a release of the contract, section 8."""
        body = {
            **self.release.to_json(),
            "replayed": self.replayed,
            "budget_remaining": self.budget.epsilon_remaining,
            "budget": self.budget.to_json(),
            "exact_value": self.exact_value,
        }
        return body if self.exact_value is None else {**body, "unsafe": True}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; the client's way back to the noun."""
        return cls(
            release=Release.from_json(body),
            replayed=bool(body["replayed"]),
            budget=BudgetBlock.from_json(body["budget"]),
            exact_value=body["exact_value"],
        )


@dataclass(frozen=True, slots=True)
class Quote:
    """What one release would cost and how precise it would be, before it is bought."""

    metric: Metric
    window: Window
    segment: Segment | None
    mechanism: str
    epsilon: float
    delta: float
    noise_stddev: float
    half_width_95: int
    affordable: bool
    budget: BudgetBlock

    def to_json(self) -> dict[str, Any]:
        """The answer of `POST /plans?dry_run=true`."""
        return {
            "metric": self.metric.value,
            "day": self.window.end.isoformat(),
            "window_days": self.window.days,
            "segment": None if self.segment is None else str(self.segment),
            "mechanism": self.mechanism,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "noise_stddev": self.noise_stddev,
            "half_width_95": self.half_width_95,
            "affordable": self.affordable,
            "budget": self.budget.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: the label of an API key, and what the key may do."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do this; `admin` may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What an erasure did; names no user."""

    erasure_id: str
    days_touched: int
    done_at: dt.datetime

    def to_json(self) -> dict[str, Any]:
        """The answer of an erasure."""
        return {
            "erasure_id": self.erasure_id,
            "days_touched": self.days_touched,
            "done_at": self.done_at.isoformat(),
        }


class PrivateValueError(TypeError):
    """A private noun was about to be written where people can read it: always a bug."""


class SupportsClose(Protocol):
    """Something with a lifetime that `app` ends."""

    def close(self) -> None:
        """Releases what it holds; may be called twice."""
