"""What can be asked of each page: the parameters of its query."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dpdau.api.schemas import Day, SegmentText
from dpdau.domain import Figure, Metric, SeriesView

RANGE_DAYS: int = 92
_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_DECIMAL = r"^[0-9]{0,3}(\.[0-9]{0,18})?([eE]-?[0-9]{1,2})?$"


class PageQuestion(BaseModel):
    """Nothing at all; a parameter that is unknown is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SeriesQuestion(PageQuestion):
    """A range of days, by its ends or by its length up to the newest number."""

    first: Day | None = Field(None, alias="from")
    last: Day | None = Field(None, alias="to")
    days: int = Field(RANGE_DAYS, ge=1, le=3660)
    view: SeriesView = SeriesView.RAW


class SegmentQuestion(SeriesQuestion):
    """A range of days of one segment."""

    segment: SegmentText | None = None


class MonthQuestion(PageQuestion):
    """One month."""

    month: Annotated[str, Field(pattern=_MONTH)] | None = None


class PriceQuestion(MonthQuestion):
    """A month at terms of one's own."""

    epsilon: Annotated[str, Field(pattern=_DECIMAL)] | None = None
    delta: Annotated[str, Field(pattern=_DECIMAL)] | None = None
    window: int | None = Field(None, ge=8, le=64)


class LogQuestion(PageQuestion):
    """A page of the release log."""

    metric: Metric | Figure | None = None
    first: Day | None = Field(None, alias="from")
    last: Day | None = Field(None, alias="to")
    segment: SegmentText | None = None
    after: str | None = Field(None, max_length=32)
    limit: int = Field(50, ge=1, le=1000)


class ReceiptQuestion(PageQuestion):
    """One receipt."""

    receipt: str | None = Field(None, max_length=64)
