"""Published numbers, what they cost, and what one would cost."""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dpdau.domain.counts import Figure, Metric, Segment, published
from dpdau.domain.days import Window


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
    metric: Metric | Figure
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
            metric=published(body["metric"]),
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
