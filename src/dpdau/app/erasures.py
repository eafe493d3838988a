"""Erasure as the verbs see it."""

from dpdau.activity import erasure
from dpdau.activity.store import ActivityStore
from dpdau.app.keys import Keys
from dpdau.domain import Clock, ErasureReceipt
from dpdau.ingest.event import check_user_id
from dpdau.ledger.ledger import Ledger
from dpdau.telemetry import Metrics


class Erasures:
    """The verbs that take a user out and say what was done."""

    def __init__(
        self,
        *,
        store: ActivityStore,
        keys: Keys,
        ledger: Ledger,
        clock: Clock,
        metrics: Metrics | None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics

    def erase(self, user_id: str) -> ErasureReceipt:
        """See `Verbs.erase`."""
        check_user_id(user_id)
        pseudonyms = self._keys.pseudonymizer().one(user_id)
        receipt = erasure.erase(self._store, pseudonyms, clock=self._clock)
        self._ledger.audit_event("operator", "erase", {"erasure_id": receipt.erasure_id})
        if self._metrics is not None:
            self._metrics.erasures.inc()
        return receipt

    def receipt(self, erasure_id: str) -> ErasureReceipt:
        """See `Verbs.erasure`."""
        return self._store.receipt(erasure_id)
