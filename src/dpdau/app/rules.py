"""What time it is, and what an event must be now: all that reading a file of events needs."""

import datetime as dt

from dpdau.ingest.rules import Fields, Rules
from dpdau.settings import Settings


def system_clock() -> dt.datetime:
    """The one place where the product asks what time it is."""
    return dt.datetime.now(dt.UTC)  # noqa: TID251


def ingest_rules(
    settings: Settings,
    today: dt.date,
    *,
    fields: Fields | None = None,
    cutoff: dt.date = dt.date.min,
) -> Rules:
    """What an event must be under these settings on a day; `cutoff` is that of the keyring."""
    return Rules(
        today=today,
        zone=settings.zone,
        dimensions=settings.DIMENSIONS,
        retention_days=settings.RETENTION_DAYS,
        fields=fields or Fields(),
        cutoff=cutoff,
    )
