"""Stores of each kind; and a ledger in each kind of database, sound at the end of each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components import postgres_server, sail_server
from dpdau.activity.embedded import EmbeddedStore
from dpdau.ledger import Ledger
from simulation.ledger_cases import (
    POSTGRES,
    Ticking,
    empty_schema,
    mark_of,
    url_of,
)
from stores import KEY, NOW, TINY, Stores, folder_in_memory, stores_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Opener = Callable[[], Ledger]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one: these tests ask about answers, not disks."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


@pytest.fixture(params=["plain", "encrypted"])
def make(request: pytest.FixtureRequest, folder: Path) -> Iterator[Callable[[], EmbeddedStore]]:
    """Makes empty stores of one implementation."""
    made: list[EmbeddedStore] = []
    key = KEY if request.param == "encrypted" else None

    def new() -> EmbeddedStore:
        root = folder / str(len(made))
        made.append(EmbeddedStore(root, store_key=key, clock=lambda: NOW, limits=TINY))
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture(params=["plain", "encrypted", "lake"])
def stores(request: pytest.FixtureRequest, folder: Path) -> Iterator[Stores]:
    """Makes empty stores of one implementation, those that cannot count live among them."""
    with stores_of(request.param, folder, lambda: request.getfixturevalue("spark")) as made:
        yield made


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One Postgres server for all tests of a worker."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def sail() -> Iterator[str]:
    """One Sail server for all tests of a worker; its master URL."""
    with sail_server() as url:
        yield url


@pytest.fixture(scope="session")
def spark(sail: str) -> "Iterator[SparkSession]":
    """One session for all tests of a worker."""
    from dpdau.activity.spark.session import connect

    session = connect(sail)
    yield session
    session.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=POSTGRES)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind that holds a ledger."""
    if request.param == "sqlite":
        return url_of(tmp_path)
    return empty_schema(request.getfixturevalue("server"))


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
