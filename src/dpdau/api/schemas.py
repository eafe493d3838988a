"""The wire shapes of every answer and request, with their units, for the OpenAPI document.

Answers are built by the nouns' own `to_json`; these models document them, and the tests hold the
two together. A model forbids further keys so that an answer cannot grow in silence.
"""

import contextlib
import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from dpdau.domain import WINDOW_DAYS_MAX, Figure, Metric, SeriesView
from dpdau.ingest.batch import REJECTIONS_KEPT_MAX

PAGE_ROWS_MAX = 1000
SEGMENT_PATTERN = r"^[^=]+=.+$"
_DAY_TEXT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _day_of_text(value: object) -> dt.date:
    """The day of a text; a number would be read as seconds, and then charged for."""
    if isinstance(value, str) and _DAY_TEXT.fullmatch(value):
        with contextlib.suppress(ValueError):
            return dt.date.fromisoformat(value)
    raise PydanticCustomError("day", "Expected a day as YYYY-MM-DD")


SegmentText = Annotated[
    str,
    Field(
        description="One value of one declared dimension, `dimension=value`.",
        examples=["platform=ios"],
        pattern=SEGMENT_PATTERN,
        max_length=256,
    ),
]
WindowDays = Annotated[
    int,
    Field(description="Days of the window.", ge=1, le=WINDOW_DAYS_MAX, examples=[28]),
]
Day = Annotated[
    dt.date,
    BeforeValidator(_day_of_text),
    Field(description="A day, YYYY-MM-DD.", examples=["1997-03-31"]),
]
OrderEpsilon = Annotated[
    tuple[int, float],
    # Tuples item by item are a part of JSON Schema that many generators of clients do not know.
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetShape(_Shape):
    """The state of one budget: a metric's allowance for one calendar month."""

    metric: str = Field(description="The metric that the budget pays for.")
    period: str = Field(description="The calendar month, YYYY-MM.")
    filter: str = Field(description="The rule that decides whether a charge fits: basic or zcdp.")
    epsilon_cap: float = Field(description="Cap on ε of the month, at `delta`.")
    epsilon_spent: float = Field(description="ε charged so far; rounded up.")
    epsilon_remaining: float = Field(description="ε that is left; rounded down.")
    delta: float = Field(description="δ at which the cap and the spending hold.")
    rdp_orders: list[int] = Field(description="Orders of the reported Rényi curve.")
    rdp_curve: list[OrderEpsilon] = Field(description="(order, ε of that Rényi order).")
    best_rdp_epsilon: float | None = Field(
        description="Reported: the least ε of the curve, at `reported_delta`."
    )
    best_rdp_order: int | None = Field(description="The order that gives it; null if none.")
    advanced_epsilon: float | None = Field(description="Reported: ε by advanced composition.")
    advanced_delta: float = Field(description="δ of `advanced_epsilon`.")
    pld_epsilon: float | None = Field(
        description="Reported: ε at `reported_delta` by the privacy loss."
    )
    reported_delta: float = Field(
        description="δ of the RDP and PLD figures: `delta`, or `DELTA` where that is 0."
    )
    rho_spent: str = Field(description="zCDP ρ charged so far, as an exact fraction.")
    release_count: int = Field(description="Releases charged in the month.")
    policy: str = Field(description="How numbers are paid for.")


class ReleaseShape(_Shape):
    """A published number; it never changes."""

    metric: Metric | Figure = Field(description="What is counted.")
    day: dt.date = Field(description="The target day, equal to `window_end`.")
    window_days: int = Field(description="Days of the window.")
    window_start: dt.date = Field(description="First day that counts.")
    window_end: dt.date = Field(description="Last day that counts.")
    timezone: str = Field(description="IANA time zone in which the days begin and end.")
    segment: str | None = Field(description="`dimension=value`, or null for everyone.")
    estimate: int = Field(description="Distinct users plus noise, in users; may be negative.")
    lower_95: int = Field(description="Lower end of the 95 % interval, in users.")
    upper_95: int = Field(description="Upper end of the 95 % interval, in users.")
    noise_stddev: float = Field(description="Standard deviation of the noise, in users.")
    epsilon_used: float = Field(description="ε of this release.")
    delta: float = Field(description="δ of this release.")
    mechanism: str = Field(description="The noise mechanism.")
    sketch_impl: str = Field(description="How distinct users were counted.")
    released_at: dt.datetime = Field(description="When it was published, RFC 3339 in UTC.")
    release_id: str = Field(description="Id of the release.")
    plan_id: str = Field(description="Id of the plan that paid for it.")
    step: int = Field(description="Step of the plan, from 0.")
    status: str = Field(
        description="`final`: as released, it never changes. `consistent` or `smoothed`: a view "
        "of it, which does."
    )
    version: str = Field(description="Version of dpdau that published it.")


class AnswerShape(ReleaseShape):
    """A release with the state of its budget now."""

    replayed: bool = Field(description="Whether it was stored before: then nothing was charged.")
    budget_remaining: float = Field(description="ε that is left of the month's budget.")
    budget: BudgetShape = Field(description="The month's budget after this request.")
    exact_value: int | None = Field(
        description="null, unless the service was started with `--unsafe-debug`."
    )
    unsafe: Literal[True] | None = Field(
        default=None, description="Present where `exact_value` is: the answer is not private."
    )


class GrowthTotalShape(_Shape):
    """How many users a window has, as a sum of published cells."""

    window_days: int = Field(description="Days of the window.")
    window_start: dt.date = Field(description="First day that counts.")
    window_end: dt.date = Field(description="Last day that counts.")
    estimate: int = Field(description="The sum, in users; may be negative.")
    lower_95: int = Field(description="Lower end of the 95 % interval, in users.")
    upper_95: int = Field(description="Upper end of the 95 % interval, in users.")
    half_width_95: int = Field(description="Half the width of the 95 % interval, in users.")
    noise_stddev: float = Field(description="Standard deviation of the noise, in users.")


class GrowthShape(_Shape):
    """The users of two neighboring windows, each in one of four cells; one charge for all."""

    new: ReleaseShape = Field(description="In the later window, and never before it.")
    retained: ReleaseShape = Field(description="In both windows.")
    resurrected: ReleaseShape = Field(
        description="In the later window, not in the earlier one, and before both."
    )
    churned: ReleaseShape = Field(description="In the earlier window alone.")
    current: GrowthTotalShape = Field(
        description="The later window: new + retained + resurrected, exactly as published."
    )
    previous: GrowthTotalShape = Field(
        description="The earlier window: retained + churned, exactly as published."
    )
    replayed: bool = Field(description="Whether it was stored before: then nothing was charged.")
    budget_remaining: float = Field(description="ε that is left of the month's MAU budget.")
    budget: BudgetShape = Field(description="The month's MAU budget after this request.")


class SeriesShape(_Shape):
    """What is released in a range, in day order."""

    releases: list[AnswerShape]


class ReleasePageShape(_Shape):
    """One page of the release log, oldest first."""

    releases: list[ReleaseShape]
    next: str | None = Field(description="Cursor of the next page for `after`; null at the end.")


class PlanPageShape(_Shape):
    """One page of the opened plans with their charges, oldest first."""

    plans: list[dict[str, Any]]
    next: str | None = Field(description="Cursor of the next page for `after`; null at the end.")


class QuoteShape(_Shape):
    """What a release would cost and how precise it would be."""

    metric: Metric
    day: dt.date
    window_days: int = Field(description="Days of the window.")
    segment: str | None
    mechanism: str
    epsilon: float = Field(description="ε that would be charged.")
    delta: float = Field(description="δ that would be charged.")
    noise_stddev: float = Field(description="Standard deviation of the noise, in users.")
    half_width_95: int = Field(description="Half the width of the 95 % interval, in users.")
    affordable: bool = Field(description="Whether the charge fits what is left.")
    budget: BudgetShape


class MonthLineShape(_Shape):
    """The precision of one metric of one series over a month."""

    metric: Metric
    window_days: int = Field(description="Days of the window.")
    segment: str | None = Field(description="`dimension=value`, or null for everyone.")
    noise_stddev: float = Field(description="Root of the mean variance of the noise, in users.")
    half_widths_95: list[int] = Field(
        description="Half the width of the 95 % interval of each day, in users."
    )
    smallest_population: int = Field(
        description="Users from which on every interval is within 5 % of the count."
    )


class MonthQuoteShape(_Shape):
    """What the plan of a month costs and how precise its numbers are."""

    month: str = Field(description="The calendar month, YYYY-MM.")
    mechanism: str
    strategy: str = Field(description="Name of the noise strategy.")
    epsilon: float = Field(description="ε of all numbers of the month together.")
    delta: float = Field(description="δ of all numbers of the month together.")
    affordable: bool = Field(description="Whether the charge is made or fits what is left.")
    opened: bool = Field(description="Whether the plan is open: then the charge is made.")
    lines: list[MonthLineShape]
    budget: BudgetShape


class MonthStatusShape(_Shape):
    """An open month plan and how far it has come."""

    plan_id: str = Field(description="Id of the plan.")
    month: str = Field(description="The calendar month, YYYY-MM.")
    timezone: str = Field(description="IANA time zone in which its days begin and end.")
    days: int = Field(description="Days of the month.")
    days_taken: int = Field(description="Days whose numbers are published.")
    segments: list[str] = Field(description="What is published beside the total.")
    mechanism: str
    epsilon: float = Field(description="ε of all numbers of the month together.")
    delta: float = Field(description="δ of all numbers of the month together.")
    opened_at: dt.datetime = Field(description="When the charge was made, RFC 3339 in UTC.")
    abandoned: bool = Field(description="Whether it was given up: no further day is taken.")
    next_day: dt.date | None = Field(description="The day that comes next; null at the end.")
    next_closes_at: dt.datetime | None = Field(description="When it may be taken.")
    budget: BudgetShape


class RejectionShape(_Shape):
    """One item that was not taken; it repeats nothing of the item."""

    index: int = Field(description="Place of the item in the body, from 0.")
    code: str = Field(description="Stable code of the fault.")
    field: str | None = Field(description="The field at fault; null for the whole item.")
    message: str = Field(description="What was expected.")


class IngestShape(_Shape):
    """What became of a batch: received = accepted + duplicate + late + rejected_count."""

    ingested: int = Field(description="Events that were stored: accepted + late.")
    received: int = Field(description="Items in the body.")
    accepted: int = Field(description="Events taken for a day that is open.")
    duplicate: int = Field(description="Events seen before, by event id or batch id.")
    late: int = Field(description="Events taken for a day that was released already.")
    rejected: list[RejectionShape] = Field(
        description=f"The first {REJECTIONS_KEPT_MAX} items that were not taken."
    )
    rejected_count: int = Field(description="Items that were not taken, all of them.")


class TombstoneShape(_Shape):
    """What an open plan keeps of an erased user: that nobody is counted under one pseudonym."""

    kept_for: str = Field(description="The month of a plan, or a day that is counted live.")
    through: dt.date = Field(description="The last day that it is needed for.")


class ReceiptShape(_Shape):
    """What an erasure did; names no user."""

    erasure_id: str = Field(description="Id of the erasure.")
    days_touched: int = Field(description="Distinct days on which the user was taken out.")
    done_at: dt.datetime = Field(description="When it was durable, RFC 3339 in UTC.")
    keys_searched: int | None = Field(
        description="Under how many live keys the user was looked for; null in older receipts."
    )
    tombstones: list[TombstoneShape] | None = Field(
        description="What open plans keep of the user, and until when; null in older receipts."
    )
    version: str | None = Field(
        description="Version of the product that did it; null in older receipts."
    )
    files_cleared: bool = Field(
        description="Whether every file that held a replaced row is gone; false only after a crash,"
        " until `dpdau flush-deletes`."
    )


class VersionShape(_Shape):
    """The version of the service."""

    name: Literal["dpdau"]
    version: str


class StatusShape(_Shape):
    """A probe's answer."""

    status: Literal["ok"]


class ProblemShape(BaseModel):
    """A problem document (RFC 9457); further members are facts of the error."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="`urn:dpdau:problem:` and the code.")
    title: str = Field(description="The phrase of the status.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable code of the error.")
    detail: str = Field(description="What was expected and what was found.")


class PlanRequest(_Shape):
    """A release to price or to take: a plan with one step."""

    metric: Metric = Field(description="What is counted.")
    day: Day
    window: Annotated[WindowDays, Strict()] | None = None
    segment: SegmentText | None = None
    fresh: Annotated[bool, Strict()] = Field(
        default=False, description="On demand and anew, although a number is stored or planned."
    )


class MonthRequest(_Shape):
    """A month plan to price or to open."""

    month: str = Field(
        description="The calendar month, YYYY-MM.",
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        examples=["1997-03"],
    )


class EventShape(BaseModel):
    """One event of the turnstile stream."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    user_id: str = Field(description="1..256 bytes of UTF-8.", min_length=1, max_length=256)
    op: Literal["+", "-"] = Field(description="`+` was active, `-` was not.")
    day: dt.date | None = Field(None, description="The day, YYYY-MM-DD.")
    ts: dt.datetime | None = Field(None, description="RFC 3339; stands for `day`.")
    event_id: str | None = Field(None, description="The sender's idempotency key.")
    metadata: dict[str, Any] | None = Field(
        None, description="Declared dimensions, and `days` of a `-`; other keys are not stored."
    )


class EventEnvelope(BaseModel):
    """The body of `POST /event`: exactly one of the two."""

    event: EventShape | None = None
    events: list[EventShape] | None = None


class _Query(BaseModel):
    """Parameters of a query; one that is unknown is refused, as a misspelled one would mislead."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseQuery(_Query):
    """Which users, which window (only `mau` has more than one), and whether to buy anew."""

    segment: SegmentText | None = None
    window: WindowDays | None = None
    fresh: bool = Field(default=False, description="Buy a new release although one is stored.")


class WindowQuery(ReleaseQuery):
    """The window that ends at a day."""

    end: Day


class GrowthQuery(_Query):
    """The later window, and whether to buy anew."""

    end: Day
    window: WindowDays | None = None
    fresh: bool = Field(default=False, description="Buy new numbers although some are stored.")


class SeriesQuery(_Query):
    """A range of released numbers."""

    metrics: str = Field("dau,wau,mau", description="Comma-separated metrics.", max_length=64)
    first: Day = Field(alias="from")
    last: Day = Field(alias="to")
    segment: SegmentText | None = None
    view: SeriesView = Field(
        SeriesView.RAW,
        description="raw as released; consistent: 0 <= DAU <= WAU <= MAU; smoothed: by a model.",
    )
    format: Literal["json", "csv"] = Field("json", description="The form of the answer.")


class BudgetQuery(_Query):
    """The month of a day."""

    day: Day | None = None


class PageQuery(_Query):
    """Where a page begins and how long it is."""

    after: str | None = Field(None, description="Cursor from the page before.", max_length=256)
    limit: int = Field(100, description="Rows of the page.", ge=1, le=PAGE_ROWS_MAX)


class PlansQuery(_Query):
    """Price or buy."""

    dry_run: bool = Field(default=False, description="Price it; charge nothing.")
