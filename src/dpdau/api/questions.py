"""What can be asked of each page: the parameters of its query."""

import datetime as dt
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dpdau.api.schemas import Day, SegmentText
from dpdau.domain import Figure, Metric, SeriesView
from dpdau.errors import InvalidPlanError

RANGE_DAYS: int = 92
DAYS_MAX: Final = 3660
FIRST_DAY: Final = dt.date(1900, 1, 1)
LAST_DAY: Final = dt.date(9998, 12, 31)
"""Days and months beyond these are no question: a page also looks at those around."""
_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_DECIMAL = r"^[0-9]{0,3}(\.[0-9]{0,18})?([eE]-?[0-9]{1,2})?$"


def _near(month: str) -> str:
    """A month that has days around it."""
    if not str(FIRST_DAY) <= f"{month}-01" <= str(LAST_DAY):
        raise ValueError(f"the month should be from {FIRST_DAY:%Y-%m} to {LAST_DAY:%Y-%m}")
    return month


NearDay = Annotated[Day, Field(ge=FIRST_DAY, le=LAST_DAY)]
NearMonth = Annotated[str, Field(pattern=_MONTH), AfterValidator(_near)]


class PageQuestion(BaseModel):
    """Nothing at all; a parameter that is unknown is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SeriesQuestion(PageQuestion):
    """A range of days, by its ends or by its length up to the newest number."""

    first: NearDay | None = Field(None, alias="from")
    last: NearDay | None = Field(None, alias="to")
    days: int = Field(RANGE_DAYS, ge=1, le=DAYS_MAX)
    view: SeriesView = SeriesView.RAW


class SegmentQuestion(SeriesQuestion):
    """A range of days of one segment."""

    segment: SegmentText | None = None


class MonthQuestion(PageQuestion):
    """One month."""

    month: NearMonth | None = None


class PriceQuestion(MonthQuestion):
    """A month at terms of one's own."""

    epsilon: Annotated[str, Field(pattern=_DECIMAL)] | None = None
    delta: Annotated[str, Field(pattern=_DECIMAL)] | None = None
    window: int | None = Field(None, ge=8, le=64)


class LogQuestion(PageQuestion):
    """A page of the release log."""

    metric: Metric | Figure | None = None
    first: NearDay | None = Field(None, alias="from")
    last: NearDay | None = Field(None, alias="to")
    segment: SegmentText | None = None
    after: str | None = Field(None, max_length=32)
    limit: int = Field(50, ge=1, le=1000)


class ReceiptQuestion(PageQuestion):
    """One receipt."""

    receipt: str | None = Field(None, max_length=64)


def require_range(first: dt.date, last: dt.date) -> None:
    """Refuses a range that no page shows.

    Raises:
        InvalidPlanError: It ends before it begins, or is too long.
    """
    if first > last:
        raise InvalidPlanError("Expected a range that ends on or after the day it begins.")
    if (last - first).days >= DAYS_MAX:
        raise InvalidPlanError(
            f"Expected at most {DAYS_MAX} days in a range; ask for one part at a time."
        )
