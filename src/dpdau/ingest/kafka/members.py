"""The members of the group that one process runs, each in a thread of its own."""

import threading
from collections.abc import Callable

from dpdau.domain import Clock
from dpdau.errors import DpdauError
from dpdau.ingest.kafka.broker import Broker, Health
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.member import Listener, Member
from dpdau.ingest.rules import Rules
from dpdau.telemetry import log, place_of

_LOG = log("kafka")

__all__ = ["Members"]


class Members:
    """Members that come and go; they end together where one of them meets what nothing mends.

    Args:
        broker: Where events come from.
        claims: The partitions of this process.
        rules: What is taken now.
        listener: Hears how it goes.
        clock: What time it is.
        accept_gap: Passes over messages that were deleted before they were read.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        claims: Claims,
        rules: Callable[[], Rules],
        listener: Listener,
        clock: Clock,
        accept_gap: bool = False,
    ) -> None:
        self.claims = claims
        self.health = Health()
        self._broker = broker
        self._rules = rules
        self._listener = listener
        self._clock = clock
        self._accept_gap = accept_gap
        self._lock = threading.Lock()
        self._running: list[tuple[Member, threading.Thread]] = []
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """What ended a member, if anything did."""
        return self._failure

    def add(self) -> None:
        """Has one more member join the group.

        Raises:
            InvalidSettingError: The library is missing or refuses an option.
        """
        member = Member(
            self._broker,
            claims=self.claims,
            rules=self._rules,
            health=self.health,
            listener=self._listener,
            clock=self._clock,
            accept_gap=self._accept_gap,
        )
        thread = threading.Thread(target=self._run, args=(member,), name="kafka", daemon=True)
        self._running.append((member, thread))
        thread.start()

    def remove(self) -> None:
        """Has the member that joined first leave the group, when what it read is durable."""
        member, thread = self._running.pop(0)
        member.stop()
        thread.join()

    def close(self) -> None:
        """Has all members leave; may be called twice."""
        for member, _ in self._running:
            member.stop()
        while self._running:
            self.remove()

    def _run(self, member: Member) -> None:
        """What the thread of a member does."""
        try:
            member.run()
        except Exception as error:  # noqa: BLE001 - the outermost loop of a worker.
            with self._lock:
                is_first = self._failure is None
                self._failure = self._failure or error
            if is_first:
                # The message of an error of ours names no user; that of a bug may.
                facts = place_of(error)
                if isinstance(error, DpdauError):
                    facts = {"code": error.code, "detail": error.message}
                _LOG.error("consuming ended", **facts)
            # Its partitions would go to the others, who would meet the same.
            for other, _thread in list(self._running):
                other.stop()
