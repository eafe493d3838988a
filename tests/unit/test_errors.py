"""The error tree: every leaf has a code of its own and a row in the table."""

import inspect

import pytest

from dpdau import errors
from dpdau.errors import OUTCOMES, DpdauError


def leaves() -> list[type[DpdauError]]:
    """The classes that nothing derives from."""
    found = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    tree = [one for one in found if issubclass(one, DpdauError)]
    return [one for one in tree if not one.__subclasses__()]


def test_every_leaf_has_a_row_and_every_row_is_a_leaf() -> None:
    """The table and the tree name the same errors."""
    assert set(leaves()) == set(OUTCOMES)


def test_codes_are_unique_and_lead_back_to_their_leaf() -> None:
    """A code names one leaf."""
    codes = [leaf.code for leaf in leaves()]

    assert len(set(codes)) == len(codes)
    assert leaves() == [errors.error_class(code) for code in codes]
    assert errors.error_class("no_such_code") is None


@pytest.mark.parametrize("leaf", leaves())
def test_the_docstring_draws_each_class(leaf: type[DpdauError]) -> None:
    """The tree in the module's docstring is complete, and each class ends in Error."""
    assert leaf.__name__ in (errors.__doc__ or "")
    assert leaf.__name__.endswith("Error")


def test_facts_are_kept() -> None:
    """An error carries its message and its facts."""
    error = errors.BudgetExhaustedError("Expected room, found none.", metric="dau")

    assert "Expected room, found none." == error.message
    assert {"metric": "dau"} == error.facts
    assert 429 == errors.outcome(error).http_status
