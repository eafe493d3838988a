"""A ledger in each kind of database, sound at the end of each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpdau.ledger import Ledger
from simulation.ledger_cases import (
    Ticking,
    mark_of,
    url_of,
)

Opener = Callable[[], Ledger]


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind that holds a ledger."""
    assert "sqlite" == request.param
    return url_of(tmp_path)


@pytest.fixture
def opener(url: str, tmp_path: Path) -> Opener:
    """Opens the ledger, again and again."""
    return lambda: Ledger(url, mark_path=mark_of(tmp_path), clock=Ticking())


@pytest.fixture
def ledger(opener: Opener) -> Iterator[Ledger]:
    """An empty ledger, which must be sound at the end of each test."""
    one = opener()
    yield one
    problems = one.verify().problems
    one.close()
    assert () == problems
