"""What is counted, of whom, and an exact count with what it may be used for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from dpdau.errors import InvalidPlanError


class Metric(StrEnum):
    """A published count: distinct users active in a trailing window."""

    DAU = "dau"
    WAU = "wau"
    MAU = "mau"


class Figure(StrEnum):
    """A published count that is no trailing window of its own.

    `live` is today so far. The others are the users of two neighboring windows, each user in one
    of them: in the later alone and never before, in both, in the later alone but also earlier than
    both, in the earlier alone.
    """

    LIVE = "live"
    NEW = "new"
    RETAINED = "retained"
    RESURRECTED = "resurrected"
    CHURNED = "churned"


def published(name: str) -> Metric | Figure:
    """The metric or figure of a name.

    Raises:
        ValueError: There is none.
    """
    return Metric(name) if name in set(Metric) else Figure(name)


class Unit(StrEnum):
    """The privacy unit: what is added or removed between neighbors."""

    USER = "user"


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
