"""The frozen nouns of the product and their own validity, with no I/O: one file for each family."""

from dpdau.domain.counts import (
    BoundedCount,
    ContributionBounds,
    Metric,
    NeighboringRelation,
    Segment,
    Unit,
)
from dpdau.domain.days import (
    WAU_WINDOW_DAYS,
    WINDOW_DAYS_MAX,
    WINDOW_END_MAX,
    WINDOW_END_MIN,
    Clock,
    Window,
    day_date,
    day_number,
    month_of,
    parse_day,
)
from dpdau.domain.events import (
    BATCH_ROWS_MAX,
    Event,
    EventBatch,
    Labels,
    Op,
)
from dpdau.domain.people import (
    Caller,
    ErasureReceipt,
    PrivateValueError,
    Scope,
    SupportsClose,
)
from dpdau.domain.releases import (
    Answer,
    BudgetBlock,
    Quote,
    Release,
)

__all__ = [
    "BATCH_ROWS_MAX",
    "WAU_WINDOW_DAYS",
    "WINDOW_DAYS_MAX",
    "WINDOW_END_MAX",
    "WINDOW_END_MIN",
    "Answer",
    "BoundedCount",
    "BudgetBlock",
    "Caller",
    "Clock",
    "ContributionBounds",
    "ErasureReceipt",
    "Event",
    "EventBatch",
    "Labels",
    "Metric",
    "NeighboringRelation",
    "Op",
    "PrivateValueError",
    "Quote",
    "Release",
    "Scope",
    "Segment",
    "SupportsClose",
    "Unit",
    "Window",
    "day_date",
    "day_number",
    "month_of",
    "parse_day",
]
