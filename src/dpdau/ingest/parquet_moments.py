"""Moments in Parquet as INT96, a type without a word on zones, which Spark writes to this day."""

from typing import Any, Final

import pyarrow as pa

__all__ = ["OLD_UNIT", "with_moments"]

OLD_UNIT: Final = "us"
"""What INT96 is read in: its years do not fit into nanoseconds."""


def with_moments(rows: Any, stored: Any) -> Any:
    """Rows in which what is stored as INT96 is a moment, as it is to Spark, and not a local time.

    Args:
        rows: A table or a record batch.
        stored: The `ParquetSchema` of the file that they are from.
    """
    columns = (stored.column(place) for place in range(len(stored)))
    old = {one.path for one in columns if one.physical_type == "INT96"}
    if old.isdisjoint(rows.schema.names):
        return rows
    fields = [
        one.with_type(pa.timestamp(one.type.unit, "UTC")) if one.name in old else one
        for one in rows.schema
    ]
    return rows.cast(pa.schema(fields))
