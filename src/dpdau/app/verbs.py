"""The verbs of the product, as every front sees them.

They have two implementations: `app.App` in this process, and `client.Client` over HTTP.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from dpdau.domain import (
    Answer,
    BudgetBlock,
    ErasureReceipt,
    GrowthAnswer,
    Metric,
    MonthQuote,
    MonthStatus,
    Quote,
    Segment,
    SeriesView,
)
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded


class Verbs(Protocol):
    """What a front can ask for, whether the product is in this process or behind a URL."""

    def ingest(
        self, decoded: Decoded | DecodedTable, *, batch_id: str | None = None
    ) -> IngestReport:
        """Takes events in; durable when it returns.

        A batch with a `batch_id` that was applied changes nothing, so an id is for one content
        only. Without one, events that come again are applied again: the last one decides.
        """

    def price(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Quote:
        """What a release would cost and how precise it would be; charges nothing.

        A `fresh` one is on demand, also where a month plan publishes the number.
        """

    def release(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Answer:
        """One published number: the stored one, or a new one with its charge."""

    def growth(
        self, day: dt.date, *, window_days: int | None = None, fresh: bool = False
    ) -> GrowthAnswer:
        """Who is new, retained, resurrected and churned between the window that ends on a day and
        the one before it: the stored numbers, or new ones with their one charge."""

    def series(
        self,
        metrics: Sequence[Metric],
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        view: SeriesView = SeriesView.RAW,
    ) -> list[Answer]:
        """What is released already, each window by itself, in day order; never spends."""

    def price_month(self, month: str) -> MonthQuote:
        """What the plan of a month costs and how precise its numbers are; charges nothing."""

    def open_month(self, month: str) -> MonthStatus:
        """Opens the plan of a month: one charge for all its numbers; does nothing if it is open."""

    def month(self, month: str) -> MonthStatus:
        """The open plan of a month, and how far it has come."""

    def budget(self, metric: str, day: dt.date | None = None) -> BudgetBlock:
        """The state of the budget of a metric, or of `plan`, for the month of a day (today)."""

    def erase(self, user_id: str) -> ErasureReceipt:
        """Takes out everything of one user, under every live key."""

    def erasure(self, erasure_id: str) -> ErasureReceipt:
        """The receipt of an erasure."""
