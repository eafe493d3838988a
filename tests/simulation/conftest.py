"""Components that several simulations share: started once by the worker that has their group."""

from collections.abc import Iterator

import pytest

from components import Kafka, kafka_nodes


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Apache Kafka, one node."""
    with kafka_nodes(1) as found:
        yield found
