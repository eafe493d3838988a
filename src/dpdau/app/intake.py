"""Events as the verbs see them: read under this deployment's rules, pseudonymous, stored."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from dpdau.activity.store import ActivityStore
from dpdau.app.keys import Keys
from dpdau.app.rules import ingest_rules
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.bodies import decode_body
from dpdau.ingest.commit import GroupCommit, Request
from dpdau.ingest.decoded import DecodedTable, TableForm
from dpdau.ingest.event import Decoded, Form, Rules
from dpdau.release import Calendar
from dpdau.settings import Settings

if TYPE_CHECKING:
    from dpdau.ingest.bulk import Progress
    from dpdau.ingest.kafka.producing import Producing


_Answer = TypeVar("_Answer")


class Intake:
    """The way of events into the store.

    Args:
        settings: The loaded settings.
        store: Where events go.
        keys: What names their users.
        calendar: What day it is.
        before: What has to be done before events are written.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: ActivityStore,
        keys: Keys,
        calendar: Calendar,
        before: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._keys = keys
        self._calendar = calendar
        self._rules: Rules | None = None
        self._feeds: list[Callable[[], None]] = []
        self._commits = GroupCommit(
            store,
            pseudonymizer=keys.pseudonymizer,
            dimensions=settings.DIMENSIONS,
            before=before,
        )
        self._producing = _producing(settings, keys) if settings.INGEST_MODE == "kafka" else None
        self._road: GroupCommit | Producing = self._producing or self._commits

    def rules(self) -> Rules:
        """What an event must be today, for the readers of `ingest`."""
        today, cutoff = self._calendar.today(), self._keys.pseudonymizer().first_day
        known = self._rules
        if known is None or (known.today, known.cutoff) != (today, cutoff):
            known = self._rules = ingest_rules(self._settings, today, cutoff=cutoff)
        return known

    def decode(
        self, body: bytes, form: Form | TableForm, *, unpacked_bytes_max: int
    ) -> Decoded | DecodedTable:
        """Reads the body of an ingest request under this deployment's zone and limits."""
        return decode_body(body, form, rules=self.rules(), unpacked_bytes_max=unpacked_bytes_max)

    def submit(
        self,
        decoded: Decoded | DecodedTable,
        *,
        batch_id: str | None = None,
        offsets: Mapping[str, int] | None = None,
    ) -> Future[IngestReport]:
        """Has events written; the report comes once they are durable; see `GroupCommit.submit`.

        Under `INGEST_MODE=kafka` they are durable in Kafka; see `Producing`.
        """
        return self._road.submit(decoded, batch_id=batch_id, offsets=offsets)

    def submit_here(self, requests: Sequence[Request]) -> None:
        """Lets requests wait for `write_here`; see `GroupCommit.submit_here`."""
        self._road.submit_here(requests)

    def write_here(self, again: Callable[[], object]) -> bool:
        """Writes what waits, here where it can; see `GroupCommit.write_here`."""
        return self._producing is None and self._commits.write_here(again)

    def submit_consumed(
        self, decoded: Decoded | DecodedTable, offsets: Mapping[str, int]
    ) -> Future[IngestReport]:
        """Has what came from Kafka written to the store, whatever the mode."""
        return self._commits.submit(decoded, offsets=offsets)

    @property
    def store(self) -> ActivityStore:
        """Where events go."""
        return self._store

    def offset(self, source: str) -> int | None:
        """The last offset of a source that is stored with its activity, or None."""
        return self._store.offset(source)

    @property
    def passes_on(self) -> bool:
        """Whether events that are sent here go to Kafka first."""
        return self._producing is not None

    def check_ready(self) -> None:
        """Proves that events can be taken now, as far as that is not the store's matter.

        Raises:
            DpdauError: Kafka does not answer; or what `fed_by` was told raises.
        """
        if self._producing is not None:
            self._producing.check_ready()
        for check in self._feeds:
            check()

    def fed_by(self, check: Callable[[], None]) -> None:
        """Has `check_ready` ask whoever brings events by itself whether it still does."""
        self._feeds.append(check)

    def outcomes(self) -> dict[str, int]:
        """What became of the events that this process took into the store: exact, so private."""
        return self._commits.tally.outcomes()

    def alone(self, work: Callable[[], _Answer]) -> _Answer:
        """Does other work on the store, when all events that were taken before are written."""
        return self._commits.alone(work).result()

    def progress(self, reading: str) -> "Progress":
        """How far a reading of a file had come when its last run ended."""
        from dpdau.ingest.bulk import Progress

        return Progress.of(self._keys.source_name(reading), self._store.offset)

    def close(self) -> None:
        """Writes what waits; may be called twice."""
        self._road.close()
        self._commits.close()


def _producing(settings: Settings, keys: Keys) -> "Producing":
    """The road to Kafka."""
    from dpdau.app.consuming import broker_of
    from dpdau.ingest.kafka.producing import Producing

    return Producing(broker_of(settings), named=keys.source_name)
