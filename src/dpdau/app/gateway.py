"""The store of a deployment that passes events on to Kafka: it may have no activity of its own.

Where `INGEST_MODE=kafka`, the activity is in the store of the process that consumes. Any other
store is empty, and a number from it would be a wrong number, an erasure an untrue receipt.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from numpy import int64
from numpy.typing import NDArray

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.store import ActivityStore
from dpdau.domain import Segment
from dpdau.errors import StoreUnavailableError

__all__ = ["READS_AGAIN", "GatewayStore", "feed_of", "require_activity"]

READS_AGAIN: Final = "kafka-reads-again"
"""Under this name a restored store notes, as an offset, that it reads again from Kafka what it had
read before somebody was erased."""


def feed_of(topic: str) -> str:
    """What names the feed of a topic, for a keyed hash; noted where it is consumed."""
    return f"kafka {topic}"


def require_activity(store: ActivityStore) -> None:
    """Refuses what is written into the ledger first, as an erasure is, where no activity is.

    Raises:
        StoreUnavailableError: The store is that of a deployment that only passes events on.
    """
    if isinstance(store, GatewayStore):
        store.require_activity()


class GatewayStore(EmbeddedStore):
    """An embedded store that refuses every verb on activity until events were consumed into it.

    Args:
        feed: The source that is noted where events are consumed.
        options: Those of `EmbeddedStore`.

    Raises: as `EmbeddedStore`.
    """

    def __init__(self, *places: Any, feed: str, **options: Any) -> None:
        super().__init__(*places, **options)
        self._feed = feed

    def counts(
        self,
        *,
        first: dt.date,
        last: dt.date,
        window_days: Sequence[int],
        segment: Segment | None = None,
    ) -> NDArray[int64]:
        """See `ActivityStore.counts`."""
        self.require_activity()
        return super().counts(first=first, last=last, window_days=window_days, segment=segment)

    def growth(self, end: dt.date, *, window_days: int) -> NDArray[int64]:
        """See `ActivityStore.growth`."""
        self.require_activity()
        return super().growth(end, window_days=window_days)

    def close_day(self, day: dt.date) -> None:
        """See `ActivityStore.close_day`."""
        self.require_activity()
        super().close_day(day)

    def freeze(self, month: str, day: dt.date) -> None:
        """See `ActivityStore.freeze`."""
        self.require_activity()
        super().freeze(month, day)

    def frozen_through(self, month: str) -> dt.date | None:
        """See `ActivityStore.frozen_through`."""
        self.require_activity()
        return super().frozen_through(month)

    def secret(self, month: str) -> bytes | None:
        """See `ActivityStore.secret`."""
        self.require_activity()
        return super().secret(month)

    def open_month(self, month: str, *, lookback_days: int, dimensions: Sequence[str] = ()) -> None:
        """See `ActivityStore.open_month`."""
        self.require_activity()
        super().open_month(month, lookback_days=lookback_days, dimensions=dimensions)

    def forget(
        self,
        pseudonyms: Sequence[int],
        *,
        erasure_id: str | None = None,
        done_at: dt.datetime | None = None,
    ) -> int:
        """See `ActivityStore.forget`."""
        self.require_activity()
        return super().forget(pseudonyms, erasure_id=erasure_id, done_at=done_at)

    def require_activity(self) -> None:
        """Refuses, until events were consumed into this store."""
        if self.offset(self._feed) is None:
            raise StoreUnavailableError(
                "Expected the store of the process that consumes, found one that only passes "
                "events on to Kafka; ask the service that was started with `serve --consume`."
            )
