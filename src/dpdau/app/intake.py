"""Events as the verbs see them: read under this deployment's rules, pseudonymous, stored."""

from dpdau.activity.store import ActivityStore
from dpdau.app.keys import Keys
from dpdau.app.wiring import ingest_rules
from dpdau.ingest import batch as batches
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.columns import DecodedTable
from dpdau.ingest.event import Decoded, Form, Rules, decode
from dpdau.release import Calendar
from dpdau.settings import Settings


class Intake:
    """The way of events into the store."""

    def __init__(
        self, settings: Settings, *, store: ActivityStore, keys: Keys, calendar: Calendar
    ) -> None:
        self._settings = settings
        self._store = store
        self._keys = keys
        self._calendar = calendar

    def rules(self) -> Rules:
        """What an event must be today, for the readers of `ingest`."""
        return ingest_rules(self._settings, self._calendar.today())

    def decode(self, body: bytes, form: Form) -> Decoded:
        """Reads the body of an ingest request under this deployment's zone and limits."""
        return decode(body, form, rules=self.rules())

    def ingest(self, decoded: Decoded | DecodedTable, *, batch_id: str | None) -> IngestReport:
        """See `Verbs.ingest`."""
        return batches.ingest(
            decoded,
            store=self._store,
            pseudonymizer=self._keys.pseudonymizer(),
            dimensions=self._settings.DIMENSIONS,
            batch_id=batch_id,
        )
