"""The product's one noise source."""

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from opendp.mod import OpenDPException

import dpdau.mechanisms.sampling as sampling
from dpdau.errors import InvalidPlanError, UnsupportedMechanismError
from dpdau.mechanisms.sampling import DRAWS_MAX, SCALE_MAX, SCALE_MIN, OpenDPNoise

_IMPORTS = """
import sys
import dpdau.mechanisms.laplace, dpdau.mechanisms.gaussian
import dpdau.accounting.budget, dpdau.accounting.report
from fractions import Fraction
from dpdau.accounting.calibration import gaussian_sigma
gaussian_sigma(Fraction(3), Fraction(1, 10**6))
print(sorted({name.split(".")[0] for name in sys.modules} & {"opendp", "dp_accounting", "scipy"}))
"""


@pytest.fixture(params=["discrete_laplace", "discrete_gaussian"], name="draw")
def _draw(request: pytest.FixtureRequest) -> Any:
    return getattr(OpenDPNoise(), request.param)


@pytest.mark.parametrize(
    "scale",
    [0.0, -1.0, float("nan"), float("inf"), -float("inf"), SCALE_MIN / 2, SCALE_MAX * 2, 5e-324],
)
def test_a_scale_out_of_range_is_refused(draw: Any, scale: float) -> None:
    """Zero, negative, not finite, or beyond the limits: no noise at all."""
    with pytest.raises(InvalidPlanError, match="noise scale"):
        draw(scale, 1)


@pytest.mark.parametrize("size", [-1, DRAWS_MAX + 1])
def test_a_size_out_of_range_is_refused(draw: Any, size: int) -> None:
    """The number of draws has a limit."""
    with pytest.raises(InvalidPlanError, match="draws"):
        draw(1.0, size)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_draws_come_as_a_vector_of_64_bit_integers(draw: Any, size: int) -> None:
    """Shape (size,), dtype int64."""
    drawn = draw(3.0, size)
    assert (size,) == drawn.shape
    assert np.dtype(np.int64) == drawn.dtype


@pytest.mark.parametrize("scale", [SCALE_MIN, SCALE_MAX])
def test_both_ends_of_the_range_can_be_drawn(draw: Any, scale: float) -> None:
    """The limits themselves are allowed."""
    assert 5 == draw(scale, 5).size


def test_nothing_like_a_seed_can_be_passed() -> None:
    """Neither the source nor its draws take anything but a scale and a size."""
    assert [] == list(inspect.signature(OpenDPNoise).parameters)
    for name in ("discrete_laplace", "discrete_gaussian"):
        assert ["scale", "size"] == list(inspect.signature(getattr(OpenDPNoise(), name)).parameters)


def test_a_measurement_is_built_once_for_each_law_and_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repeated draws reuse the measurement; another scale or law builds another."""
    built: list[tuple[str, float]] = []
    make = sampling.opendp_measurement

    def counted(law: str, scale: float) -> Any:
        built.append((law, scale))
        return make(law, scale)

    monkeypatch.setattr(sampling, "opendp_measurement", counted)
    noise = OpenDPNoise()
    for scale in (2.0, 3.0, 2.0, 2.0):
        noise.discrete_laplace(scale, 1)
        noise.discrete_gaussian(scale, 1)
    assert [("laplace", 2.0), ("gaussian", 2.0), ("laplace", 3.0), ("gaussian", 3.0)] == built


def test_remembered_measurements_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """More scales than the limit start the memory afresh."""
    monkeypatch.setattr(sampling, "_MEASUREMENTS_MAX", 2)
    noise = OpenDPNoise()
    for scale in (1.0, 2.0, 3.0):
        noise.discrete_laplace(scale, 1)
    assert 1 == len(noise._measurements)


def test_threads_may_share_the_source() -> None:
    """Eight threads draw from one source; no draw of an enormous scale appears twice."""
    noise = OpenDPNoise()
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda _: noise.discrete_gaussian(2.0**39, 20), range(16)))
    drawn = np.concatenate(vectors)
    assert drawn.size == np.unique(drawn).size


def test_a_refusal_of_the_library_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenDP's own exception does not leave the room."""

    def refuse(law: str, scale: float) -> Any:
        raise OpenDPException("MakeMeasurement", "no")

    monkeypatch.setattr(sampling, "opendp_measurement", refuse)
    with pytest.raises(UnsupportedMechanismError, match="laplace noise of scale"):
        OpenDPNoise().discrete_laplace(2.0, 1)


def test_the_slow_libraries_are_not_imported_before_they_are_needed() -> None:
    """Mechanisms, calibration, budgets and the report load without OpenDP and dp-accounting."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()
