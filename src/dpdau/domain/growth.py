"""Growth: who is new, retained, resurrected or churned, as four numbers that fit together."""

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from dpdau.domain.counts import Figure
from dpdau.domain.days import Window
from dpdau.domain.releases import BudgetBlock, Release

GROWTH: Final = (Figure.NEW, Figure.RETAINED, Figure.RESURRECTED, Figure.CHURNED)
"""The four cells, in the order of a growth plan's steps."""
GROWTH_CURRENT: Final = (Figure.NEW, Figure.RETAINED, Figure.RESURRECTED)
"""The cells whose users are active in the later window."""
GROWTH_PREVIOUS: Final = (Figure.RETAINED, Figure.CHURNED)
"""The cells whose users are active in the earlier window."""


@dataclass(frozen=True, slots=True)
class GrowthTotal:
    """A sum of published cells: how many users a window has, by another estimate than MAU's own.

    Shapes and units:
        all in users, but the window. The exact sum is within `half_width_95` of the estimate with
        probability ≥ 0.95 over the noise.
    """

    window: Window
    estimate: int
    half_width_95: int
    noise_stddev: float

    def to_json(self) -> dict[str, Any]:
        """The total as a front shows it."""
        return {
            "window_days": self.window.days,
            "window_start": self.window.start.isoformat(),
            "window_end": self.window.end.isoformat(),
            "estimate": self.estimate,
            "lower_95": self.estimate - self.half_width_95,
            "upper_95": self.estimate + self.half_width_95,
            "half_width_95": self.half_width_95,
            "noise_stddev": self.noise_stddev,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            window=Window(dt.date.fromisoformat(body["window_end"]), int(body["window_days"])),
            estimate=int(body["estimate"]),
            half_width_95=int(body["half_width_95"]),
            noise_stddev=float(body["noise_stddev"]),
        )


@dataclass(frozen=True, slots=True)
class GrowthAnswer:
    """The four cells of one growth plan as published, their totals, and the budget now.

    Guarantee: `current` and `previous` are sums of the published cells, so current − previous =
    new + resurrected − churned holds exactly.
    """

    cells: tuple[Release, ...]
    current: GrowthTotal
    previous: GrowthTotal
    replayed: bool
    budget: BudgetBlock

    def __post_init__(self) -> None:
        assert tuple(cell.metric for cell in self.cells) == GROWTH
        assert all(one.plan_id == two.plan_id for one, two in itertools.pairwise(self.cells))
        assert self.current.estimate == growth_total(self.cells, GROWTH_CURRENT)
        assert self.previous.estimate == growth_total(self.cells, GROWTH_PREVIOUS)

    def to_json(self) -> dict[str, Any]:
        """The answer of `GET /growth`."""
        return {
            **{cell.metric.value: cell.to_json() for cell in self.cells},
            "current": self.current.to_json(),
            "previous": self.previous.to_json(),
            "replayed": self.replayed,
            "budget_remaining": self.budget.epsilon_remaining,
            "budget": self.budget.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            cells=tuple(Release.from_json(body[figure.value]) for figure in GROWTH),
            current=GrowthTotal.from_json(body["current"]),
            previous=GrowthTotal.from_json(body["previous"]),
            replayed=bool(body["replayed"]),
            budget=BudgetBlock.from_json(body["budget"]),
        )


def growth_total(cells: tuple[Release, ...], figures: tuple[Figure, ...]) -> int:
    """The sum of the published estimates of some cells."""
    return sum(cell.estimate for cell in cells if cell.metric in figures)
