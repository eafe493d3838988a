"""Events as data: exact, readable for ever, refused when unknown."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.accounting.events import (
    SCALES_MAX,
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
    from_json,
    to_json,
)
from dpdau.errors import UnsupportedMechanismError

POSITIVE = st.fractions(min_value=Fraction(1, 10**20), max_value=10**20)
COUNTS = st.integers(1, 1000)
LAPLACE = st.builds(DiscreteLaplaceEvent, epsilon=POSITIVE, count=COUNTS)
GAUSSIAN = st.builds(
    DiscreteGaussianEvent,
    sigma=st.floats(1e-3, 1e12).map(Fraction),
    sensitivity=st.integers(1, 10**9),
    epsilon=POSITIVE,
    delta=st.fractions(min_value=Fraction(1, 10**20), max_value=Fraction(1, 2)),
    count=COUNTS,
)
LATTICE = st.builds(
    LatticeGaussianEvent,
    sensitivity_squared=st.integers(1, 2**60),
    scales=st.lists(st.floats(1e-3, 1e12).map(Fraction), min_size=1, max_size=4).map(tuple),
    epsilon=POSITIVE,
    delta=st.fractions(min_value=Fraction(1, 10**20), max_value=Fraction(1, 2)),
    count=COUNTS,
)


@given(event=LAPLACE | GAUSSIAN | LATTICE)
def test_an_event_survives_json_without_rounding(event: DpEvent) -> None:
    """What is read back through JSON text equals what was written, to the last digit."""
    assert event == from_json(json.loads(json.dumps(to_json(event))))


def test_the_written_form_is_stable() -> None:
    """Ledgers of every earlier version hold exactly these forms."""
    assert {"kind": "discrete_laplace", "epsilon": "3/10", "count": 1} == to_json(
        DiscreteLaplaceEvent(Fraction("0.3"))
    )
    assert {
        "kind": "discrete_gaussian",
        "sigma": "17/2",
        "sensitivity": 1,
        "epsilon": "1/2",
        "delta": "1/1000000",
        "count": 31,
    } == to_json(
        DiscreteGaussianEvent(Fraction(8.5), 1, Fraction(1, 2), Fraction(1, 10**6), count=31)
    )
    assert {
        "kind": "lattice_gaussian",
        "sensitivity_squared": 1099511627776,
        "scales": ["2048", "4097/2"],
        "epsilon": "3",
        "delta": "1/1000000",
        "count": 1,
    } == to_json(
        LatticeGaussianEvent(
            2**40, (Fraction(2048), Fraction(2048.5)), Fraction(3), Fraction(1, 10**6)
        )
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "staircase", "epsilon": "1", "count": 1},
        {"kind": "discrete_laplace"},
        {"kind": "discrete_laplace", "epsilon": "1/0", "count": 1},
        {"kind": "discrete_laplace", "epsilon": "much", "count": 1},
        {"kind": "discrete_laplace", "epsilon": None, "count": 1},
        {"kind": "discrete_laplace", "epsilon": "-1", "count": 1},
        {"kind": "discrete_laplace", "epsilon": "1", "count": 0},
        {"kind": "discrete_gaussian", "sigma": "1", "sensitivity": 1, "epsilon": "1", "count": 1},
        {"kind": "lattice_gaussian", "sensitivity_squared": 1, "epsilon": "1", "delta": "1/9"},
        {
            "kind": "lattice_gaussian",
            "sensitivity_squared": 1,
            "scales": ["1", "none"],
            "epsilon": "1",
            "delta": "1/9",
            "count": 1,
        },
    ],
)
def test_an_event_that_cannot_be_read_is_unsupported(body: dict[str, Any]) -> None:
    """Unknown kinds, missing fields and malformed numbers never become a cost."""
    with pytest.raises(UnsupportedMechanismError):
        from_json(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"sigma": Fraction(0)},
        {"sigma": Fraction(-1)},
        {"sensitivity": 0},
        {"epsilon": Fraction(0)},
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"count": 0},
        {"count": 10**9},
    ],
)
def test_a_gaussian_event_out_of_range_is_unsupported(fields: dict[str, Any]) -> None:
    """A cost that makes no sense is refused where the event is made."""
    good: dict[str, Any] = {
        "sigma": Fraction(4),
        "sensitivity": 1,
        "epsilon": Fraction(1),
        "delta": Fraction(1, 10**6),
        "count": 1,
    }
    with pytest.raises(UnsupportedMechanismError):
        DiscreteGaussianEvent(**(good | fields))


def test_rho_of_an_event_is_exact() -> None:
    """ρ = Δ² / (2σ²)."""
    event = DiscreteGaussianEvent(Fraction(4), 3, Fraction(9), Fraction(1, 10), count=2)
    assert Fraction(9, 32) == event.rho


@pytest.mark.parametrize(
    "fields",
    [
        {"sensitivity_squared": 0},
        {"scales": ()},
        {"scales": (Fraction(1), Fraction(0))},
        {"scales": (Fraction(1),) * (SCALES_MAX + 1)},
        {"epsilon": Fraction(0)},
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"count": 0},
    ],
)
def test_a_lattice_event_out_of_range_is_unsupported(fields: dict[str, Any]) -> None:
    """A cost that makes no sense is refused where the event is made."""
    good: dict[str, Any] = {
        "sensitivity_squared": 4,
        "scales": (Fraction(2),),
        "epsilon": Fraction(1),
        "delta": Fraction(1, 10**6),
    }
    with pytest.raises(UnsupportedMechanismError):
        LatticeGaussianEvent(**(good | fields))


def test_rho_of_a_lattice_event_adds_up_what_one_user_reaches() -> None:
    """ρ = Σ Δ² / (2s²) over the scales, in fractions."""
    event = LatticeGaussianEvent(
        12, (Fraction(4), Fraction(6)), Fraction(9), Fraction(1, 10), count=2
    )
    assert (Fraction(3, 8), Fraction(1, 6)) == event.rhos
    assert Fraction(13, 24) == event.rho
