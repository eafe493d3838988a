"""What happened, as data: one frozen event for each kind of mechanism, and the charge it costs.

Costs are derived from events, never stored as a bare ε. An event is written to the ledger as JSON
and read back for as long as the ledger lives, so these rules hold: no kind is ever removed, a new
field is optional, a meaning never changes (add a kind instead), an unknown kind is unsupported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from dpdau.domain import NeighboringRelation
from dpdau.errors import UnsupportedMechanismError

EVENT_COUNT_MAX: Final = 1_000_000
SCALES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class DiscreteLaplaceEvent:
    """Discrete Laplace noise of pure ε = `epsilon` (sensitivity / scale), `count` times.

    The cost is exact: `epsilon` is the decimal that was promised, and the mechanism's scale is
    rounded so that its own ε is at most this.

    Raises:
        UnsupportedMechanismError: `epsilon` or `count` is out of range.
    """

    epsilon: Fraction
    count: int = 1

    def __post_init__(self) -> None:
        _check_positive("epsilon", self.epsilon)
        _check_event_count(self.count)


@dataclass(frozen=True, slots=True)
class DiscreteGaussianEvent:
    """Discrete Gaussian noise N_Z(0, σ²) on integers of L2 sensitivity Δ, `count` times.

    `sigma` is the exact rational value of the float that the sampler was given; the cost of one is
    ρ = Δ² / (2 σ²) (Canonne, Kamath, Steinke 2020, Theorem 4). `epsilon` and `delta` are the pair
    that it was calibrated to, kept for basic composition: a valid (ε, δ) of one such event, which
    `budget.check_claim` proves before a charge is taken.

    Raises:
        UnsupportedMechanismError: A field is out of range.
    """

    sigma: Fraction
    sensitivity: int
    epsilon: Fraction
    delta: Fraction
    count: int = 1

    def __post_init__(self) -> None:
        _check_positive("sigma", self.sigma)
        _check_positive("epsilon", self.epsilon)
        _check_delta(self.delta)
        if self.sensitivity < 1:
            raise UnsupportedMechanismError(
                f"Expected sensitivity of at least 1, found {self.sensitivity}."
            )
        _check_event_count(self.count)

    @property
    def rho(self) -> Fraction:
        """zCDP cost of one."""
        return Fraction(self.sensitivity**2) / (2 * self.sigma**2)


@dataclass(frozen=True, slots=True)
class LatticeGaussianEvent:
    """Discrete Gaussian noise on an integer lattice, for all releases of a horizon, `count` times.

    One user reaches one lattice mechanism of each scale s, each with |Āv|² ≤ Δ² =
    `sensitivity_squared` over the contribution class. On every path, whatever was published before
    and however the stream reacts to it, the costs of the single steps add up to |Āv|²/(2s²) in each
    mechanism; so by the fully adaptive composition of zCDP all of them together cost at most
    ρ = Σ Δ²/(2s²) (Whitehouse, Ramdas, Rogers, Wu 2023; Canonne, Kamath, Steinke 2020, Theorem 4).
    Users in different parts are not composed in parallel: each part counts, for each user once.

    `scales` are the exact rational values of the floats that the sampler was given. `epsilon` and
    `delta` are the pair that ρ was calibrated to, which `budget.check_claim` proves before a charge
    is taken.

    Raises:
        UnsupportedMechanismError: A field is out of range.
    """

    sensitivity_squared: int
    scales: tuple[Fraction, ...]
    epsilon: Fraction
    delta: Fraction
    count: int = 1

    def __post_init__(self) -> None:
        if self.sensitivity_squared < 1:
            raise UnsupportedMechanismError(
                f"Expected a squared sensitivity of at least 1, found {self.sensitivity_squared}."
            )
        if not 1 <= len(self.scales) <= SCALES_MAX:
            raise UnsupportedMechanismError(
                f"Expected 1..{SCALES_MAX} scales, found {len(self.scales)}."
            )
        for scale in self.scales:
            _check_positive("scale", scale)
        _check_positive("epsilon", self.epsilon)
        _check_delta(self.delta)
        _check_event_count(self.count)

    @property
    def rho(self) -> Fraction:
        """zCDP cost of one, exact."""
        return sum(self.rhos, start=Fraction(0))

    @property
    def rhos(self) -> tuple[Fraction, ...]:
        """zCDP cost of the mechanism of each scale, exact."""
        return tuple(Fraction(self.sensitivity_squared) / (2 * s**2) for s in self.scales)


DpEvent = DiscreteLaplaceEvent | DiscreteGaussianEvent | LatticeGaussianEvent


@dataclass(frozen=True, slots=True)
class Charge:
    """Door 4: what one plan costs one budget. Made only by `plan`."""

    budget_id: str
    dp_event: DpEvent
    neighboring_relation: NeighboringRelation


def to_json(event: DpEvent) -> dict[str, Any]:
    """The ledger's form of an event; fractions as `num/den` text, so nothing is rounded."""
    match event:
        case DiscreteLaplaceEvent():
            return {
                "kind": "discrete_laplace",
                "epsilon": str(event.epsilon),
                "count": event.count,
            }
        case DiscreteGaussianEvent():
            return {
                "kind": "discrete_gaussian",
                "sigma": str(event.sigma),
                "sensitivity": event.sensitivity,
                "epsilon": str(event.epsilon),
                "delta": str(event.delta),
                "count": event.count,
            }
        case LatticeGaussianEvent():
            return {
                "kind": "lattice_gaussian",
                "sensitivity_squared": event.sensitivity_squared,
                "scales": [str(scale) for scale in event.scales],
                "epsilon": str(event.epsilon),
                "delta": str(event.delta),
                "count": event.count,
            }


def from_json(body: Mapping[str, Any]) -> DpEvent:
    """The inverse of `to_json`.

    Raises:
        UnsupportedMechanismError: The kind is unknown here, or a field is missing or malformed:
            either way the cost is unknown.
    """
    try:
        match body.get("kind"):
            case "discrete_laplace":
                return DiscreteLaplaceEvent(
                    epsilon=Fraction(body["epsilon"]), count=int(body["count"])
                )
            case "discrete_gaussian":
                return DiscreteGaussianEvent(
                    sigma=Fraction(body["sigma"]),
                    sensitivity=int(body["sensitivity"]),
                    epsilon=Fraction(body["epsilon"]),
                    delta=Fraction(body["delta"]),
                    count=int(body["count"]),
                )
            case "lattice_gaussian":
                return LatticeGaussianEvent(
                    sensitivity_squared=int(body["sensitivity_squared"]),
                    scales=tuple(Fraction(scale) for scale in body["scales"]),
                    epsilon=Fraction(body["epsilon"]),
                    delta=Fraction(body["delta"]),
                    count=int(body["count"]),
                )
            case kind:
                raise UnsupportedMechanismError(f"Expected a known kind of event, found {kind!r}.")
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedMechanismError(f"Expected a readable event, found {error!r}.") from error


def _check_positive(name: str, value: Fraction) -> None:
    """Refuses a number that is not above 0."""
    if value <= 0:
        raise UnsupportedMechanismError(f"Expected {name} > 0, found {value}.")


def _check_delta(delta: Fraction) -> None:
    """Refuses a δ that is not in (0, 1)."""
    if not 0 < delta < 1:
        raise UnsupportedMechanismError(f"Expected 0 < delta < 1, found {delta}.")


def _check_event_count(count: int) -> None:
    """Refuses a number of repetitions that is not in 1..`EVENT_COUNT_MAX`."""
    if not 1 <= count <= EVENT_COUNT_MAX:
        raise UnsupportedMechanismError(f"Expected 1 <= count <= {EVENT_COUNT_MAX}, found {count}.")
