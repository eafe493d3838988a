"""What mypy must accept and refuse of the public types; read by `make lint`, never run.

Each refused line has an ignore with its code: strict mode reports the ignore as soon as the line is
accepted.
"""

import datetime as dt

from dpdau.app import App, Verbs
from dpdau.client import AsyncClient, Client
from dpdau.domain import Answer, BoundedCount, Metric, Release
from dpdau.mechanisms.base import HorizonMechanism, Mechanism
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.matrix.lattice import LatticeMechanism, LatticeState
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise
from dpdau.mechanisms.tree import TreeMechanism

DAY = dt.date(2026, 1, 1)


def both_are_the_verbs(app: App, client: Client) -> tuple[Verbs, Verbs]:
    """A front cannot tell which it has."""
    return app, client


def mechanisms_are_mechanisms(
    laplace: DiscreteLaplace, gaussian: DiscreteGaussian
) -> list[Mechanism]:  # type: ignore[type-arg]
    """Both stand behind one door."""
    return [laplace, gaussian]


def horizons_are_horizon_mechanisms(
    lattice: LatticeMechanism, tree: TreeMechanism
) -> list[HorizonMechanism[LatticeState]]:
    """A whole horizon has one door too."""
    return [lattice, tree]


def the_product_has_one_source() -> NoiseSource:
    """OpenDP's samplers are a noise source."""
    return OpenDPNoise()


def numbers_come_as_answers(verbs: Verbs) -> Answer:
    """A release is asked for by metric and day."""
    return verbs.release(Metric.MAU, DAY, window_days=28)


async def numbers_are_awaited(client: AsyncClient) -> Answer:
    """The awaited client takes the same parameters."""
    return await client.release(Metric.MAU, DAY, window_days=28)


async def awaited_options_are_named(client: AsyncClient) -> Answer:
    """And names them in the same places."""
    return await client.release(Metric.MAU, DAY, 28)  # type: ignore[call-arg]


def options_are_named(verbs: Verbs) -> Answer:
    """What matters to privacy or cost is passed by name."""
    return verbs.release(Metric.MAU, DAY, 28)  # type: ignore[call-arg]


def a_metric_is_not_text(verbs: Verbs) -> Answer:
    """A metric is one of three."""
    return verbs.release("mau", DAY)  # type: ignore[arg-type]


def a_count_is_not_a_release(count: BoundedCount) -> Release:
    """What is private is not what is published."""
    return count  # type: ignore[return-value]


def a_release_does_not_change(release: Release) -> None:
    """Door 5 is immutable."""
    release.estimate = 3  # type: ignore[misc]
