"""What the tests of this room share: one Sail for all of them, and lakes that are folded early."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components import sail_server
from stores import folder_in_memory, small_lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from dpdau.activity.spark.store import SparkStore


@pytest.fixture(scope="session")
def master() -> Iterator[str]:
    """One Sail server for all tests of a worker; its master URL."""
    with sail_server() as url:
        yield url


@pytest.fixture(scope="session")
def spark(master: str) -> "Iterator[SparkSession]":
    """One session for all tests of a worker."""
    from dpdau.activity.spark.session import connect

    session = connect(master)
    yield session
    session.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


@pytest.fixture
def open_lake(folder: Path, spark: "SparkSession") -> "Iterator[Callable[..., SparkStore]]":
    """Opens the store of this test, with any option."""
    opened: list[SparkStore] = []

    def open_(**options: object) -> "SparkStore":
        opened.append(small_lake(folder, spark, **options))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
