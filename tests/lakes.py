"""What a lake that another process wrote adds up to."""

from contextlib import ExitStack, closing
from pathlib import Path

from components import sail_server
from dpdau.activity.spark.session import connect
from dpdau.activity.spark.store import SparkStore
from products import NOW
from streams import ENDS, WINDOWS


def lake_counts(data: Path) -> list[list[int]]:
    """What the lake of a data directory counts, asked by another Spark."""
    with ExitStack() as stack:
        spark = connect(stack.enter_context(sail_server()))
        # While the server is there: without it, the client would wait for it for minutes.
        stack.callback(spark.stop)
        opened = SparkStore(
            data / "activity", lake=data / "lake", spark=spark, clock=lambda: NOW, read_only=True
        )
        store = stack.enter_context(closing(opened))
        table = store.counts(first=ENDS[0], last=ENDS[-1], window_days=WINDOWS)
        found: list[list[int]] = table.tolist()
        return found
