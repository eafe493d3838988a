"""The state and the checks that mechanisms share."""

import pytest

from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import OneStep, check_coverage, check_sensitivity


def test_one_step_is_taken_once() -> None:
    """The state goes from not taken to taken, and no further."""
    before = OneStep.init(1)
    assert OneStep(taken=False) == before
    assert OneStep(taken=True) == before.next()
    with pytest.raises(InvalidPlanError, match="step 1"):
        before.next().next()


def test_a_boolean_coverage_of_one_is_refused() -> None:
    """Certainty is not on offer: the law has no bounded support."""
    with pytest.raises(InvalidPlanError):
        check_coverage(True)


def test_a_float_sensitivity_is_refused() -> None:
    """2.0 users is not an integer, and its square would not be exact."""
    with pytest.raises(InvalidPlanError):
        check_sensitivity(2.0)  # type: ignore[arg-type]
