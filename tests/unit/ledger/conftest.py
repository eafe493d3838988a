"""Ledgers of unit tests live in memory where the machine has such a folder.

Each commit of a ledger waits for its disk several times; what a power cut leaves is not the
subject here, and `tests/simulation/test_ledger_race.py` keeps real files.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components import postgres_server
from simulation.ledger_cases import empty_schema, folder_in_memory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of its own for one test."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One Postgres server for all tests of a worker."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(server: str) -> str:
    """A database on it, without tables."""
    return empty_schema(server)
