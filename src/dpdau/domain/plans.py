"""A month plan in words: what it promises, what it costs, and how far it has come."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from dpdau.domain.counts import Metric, Segment
from dpdau.domain.releases import BudgetBlock

RELATIVE_ERROR: Final = 0.05
"""The relative error that `MonthLine.smallest_population` is about."""


class SeriesView(StrEnum):
    """How a series is shown; every view is computed from the releases alone and costs nothing.

    `raw` is what was released: unbiased. `consistent` moves each day to 0 ≤ DAU ≤ WAU ≤ MAU.
    `smoothed` draws on the other days through a model of slow change, and is biased.
    """

    RAW = "raw"
    CONSISTENT = "consistent"
    SMOOTHED = "smoothed"


@dataclass(frozen=True, slots=True)
class MonthLine:
    """The precision of one metric of one series over a month.

    Shapes and units:
        half_widths_95: one for each day, in users.
        noise_stddev: root of the mean variance over the days, in users.
        smallest_population: the least count, in users, of which the widest 95 % interval is at
            most ± `RELATIVE_ERROR`.
    """

    metric: Metric
    window_days: int
    segment: Segment | None
    noise_stddev: float
    half_widths_95: tuple[int, ...]
    smallest_population: int

    def to_json(self) -> dict[str, Any]:
        """One row of a quote."""
        return {
            "metric": self.metric.value,
            "window_days": self.window_days,
            "segment": None if self.segment is None else str(self.segment),
            "noise_stddev": self.noise_stddev,
            "half_widths_95": list(self.half_widths_95),
            "smallest_population": self.smallest_population,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            metric=Metric(body["metric"]),
            window_days=int(body["window_days"]),
            segment=None if body["segment"] is None else Segment.parse(body["segment"]),
            noise_stddev=float(body["noise_stddev"]),
            half_widths_95=tuple(int(one) for one in body["half_widths_95"]),
            smallest_population=int(body["smallest_population"]),
        )


@dataclass(frozen=True, slots=True)
class MonthQuote:
    """What a month plan would cost and how precise its numbers would be, before it is bought."""

    month: str
    mechanism: str
    strategy: str
    epsilon: float
    delta: float
    affordable: bool
    opened: bool
    lines: tuple[MonthLine, ...]
    budget: BudgetBlock

    def to_json(self) -> dict[str, Any]:
        """The answer of `POST /plans?dry_run=true` for a month."""
        return {
            "month": self.month,
            "mechanism": self.mechanism,
            "strategy": self.strategy,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "affordable": self.affordable,
            "opened": self.opened,
            "lines": [line.to_json() for line in self.lines],
            "budget": self.budget.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            **{
                **body,
                "lines": tuple(MonthLine.from_json(line) for line in body["lines"]),
                "budget": BudgetBlock.from_json(body["budget"]),
            }
        )


@dataclass(frozen=True, slots=True)
class MonthStatus:
    """An open month plan and how far it has come.

    Shapes and units:
        days_taken: of `days`; each published one number for each metric and series.
        next_day: the day that comes next, and `next_closes_at` when it may be taken; None at the
            end, or where it was given up (`abandoned`).
    """

    plan_id: str
    month: str
    timezone: str
    days: int
    days_taken: int
    segments: tuple[Segment, ...]
    mechanism: str
    epsilon: float
    delta: float
    opened_at: dt.datetime
    abandoned: bool
    next_day: dt.date | None
    next_closes_at: dt.datetime | None
    budget: BudgetBlock

    def to_json(self) -> dict[str, Any]:
        """The answer of `POST /plans` for a month, and of `dpdau plan show`."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "segments": [str(segment) for segment in self.segments],
            "opened_at": self.opened_at.isoformat(),
            "next_day": None if self.next_day is None else self.next_day.isoformat(),
            "next_closes_at": (
                None if self.next_closes_at is None else self.next_closes_at.isoformat()
            ),
            "budget": self.budget.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        day, closes_at = body["next_day"], body["next_closes_at"]
        return cls(
            **{
                **body,
                "segments": tuple(Segment.parse(text) for text in body["segments"]),
                "opened_at": dt.datetime.fromisoformat(body["opened_at"]),
                "next_day": None if day is None else dt.date.fromisoformat(day),
                "next_closes_at": (
                    None if closes_at is None else dt.datetime.fromisoformat(closes_at)
                ),
                "budget": BudgetBlock.from_json(body["budget"]),
            }
        )
