"""What Spark raises, in words of the product."""

import pytest

from dpdau.errors import StoreUnavailableError, TopicMismatchError
from dpdau.ingest.spark.adopting import asked

CANARY = "canary-17"


def test_an_error_of_spark_is_told_by_its_name_alone() -> None:
    """Its words may quote rows, and are in nothing that comes out."""
    errors = pytest.importorskip("pyspark.errors")

    def failing() -> None:
        raise errors.PySparkException(CANARY)

    with pytest.raises(StoreUnavailableError) as caught:
        asked("read events", failing)

    assert "found the error" in caught.value.message
    assert CANARY not in repr(caught.value) and caught.value.__context__ is None


@pytest.mark.parametrize("words", ["Some data may have been lost because", "KAFKA_DATA_LOSS.X"])
def test_messages_that_are_gone_are_told_as_such(words: str) -> None:
    """Another attempt mends nothing: the operator decides."""
    errors = pytest.importorskip("pyspark.errors")

    def failing() -> None:
        raise errors.PySparkException(f"{words} {CANARY}")

    with pytest.raises(TopicMismatchError) as caught:
        asked("read events", failing)

    assert CANARY not in repr(caught.value) and "--accept-gap" in caught.value.message
