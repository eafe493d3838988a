"""One member over a scripted client: the end, gaps, and a client that gives up."""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from dpdau.errors import OverloadedError, TopicMismatchError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka import member
from dpdau.ingest.kafka.broker import Health
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.member import Member
from dpdau.ingest.rules import Rules
from products import NOW, event

confluent_kafka = pytest.importorskip("confluent_kafka")
CODES = confluent_kafka.KafkaError
TOPIC_ID = 2**61 + 5


class Told:
    """A message at a place, or what comes instead of one."""

    def __init__(self, offset: int = 0, code: int | None = None) -> None:
        self._offset, self._code = offset, code

    def error(self) -> Any:
        return None if self._code is None else CODES(self._code)

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def value(self) -> bytes:
        return json.dumps(event("ada")).encode()


class Topic:
    """A topic of one partition, the client that reads it, the store it goes to, and who hears.

    Once all that is scripted was given, the member is stopped.
    """

    topic, dead_letter_topic = "t", ""

    def __init__(self, *script: Iterable[Told], first: int = 0, end: int = 0) -> None:
        self.script, self.first, self.end = list(script), first, end
        self.clients = 0
        self.asked: list[bool] = []
        self._is_calling = False
        self.assigned: list[int] = []
        self.offsets: dict[str, int] = {"feed": TOPIC_ID}
        self.ends: list[bool] = []
        self.losses: list[int] = []
        self.claims = Claims(submit=self.submit, offset=self.offsets.get, source=str, feed="feed")
        self.member = Member(
            self,  # type: ignore[arg-type]
            claims=self.claims,
            rules=lambda: Rules(today=NOW.date()),
            health=Health(),
            listener=self,
            clock=lambda: dt.datetime.now(dt.UTC),
        )

    def submit(self, _decoded: object, offsets: Mapping[str, int]) -> Future[IngestReport]:
        future: Future[IngestReport] = Future()
        self.offsets.update(offsets)
        future.set_result(IngestReport())
        return future

    def consumer(self, _on_error: object) -> "Topic":
        self.clients += 1
        return self

    def topic_id(self, **_limits: object) -> int:
        return TOPIC_ID

    def subscribe(self, _topics: object, *, on_assign: Callable[..., None], **_: object) -> None:
        self._on_assign: Callable[..., None] | None = on_assign

    def consume(self, *_limits: object) -> list[Told]:
        on_assign, self._on_assign = self._on_assign, None
        if on_assign is not None:
            self._is_calling = True
            on_assign(self, [confluent_kafka.TopicPartition("t", 0)])
            self._is_calling = False
            return []
        if not self.script:
            self.member.stop()
            return []
        return list(self.script.pop(0))

    def assign(self, places: Iterable[Any]) -> None:
        self.assigned += [one.offset for one in places]

    def get_watermark_offsets(self, *_place: object, **_limits: object) -> tuple[int, int]:
        self.asked.append(self._is_calling)
        return self.first, self.end

    def list_topics(self, *_names: object, **_limits: object) -> Any:
        self.asked.append(self._is_calling)
        found = SimpleNamespace(error=None, partitions={0: None})
        return SimpleNamespace(topics={"t": found})

    def poll(self, _seconds: float) -> Told | None:
        return None

    def assignment(self) -> list[object]:
        return []

    def ignored(self, *_: object, **__: object) -> None:
        pass

    pause = resume = commit = close = ignored

    def stored(self, _report: IngestReport) -> None:
        self.ends.append(self.claims.are_at_end)

    def lost(self, messages: int) -> None:
        self.losses.append(messages)

    def behind(self, partition: int, seconds: float) -> None:
        pass

    def gone(self, partitions: Iterable[int]) -> None:
        pass


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt comes at once."""
    monkeypatch.setattr(member, "RETRY_SECONDS_MAX", 0.0)


def test_the_end_does_not_move_while_messages_come() -> None:
    """It is where the topic ended at the start, though no read ever finds nothing."""
    topic = Topic(*([Told(place)] for place in range(5)), end=3)
    topic.member.run()

    assert [False, False, True, True, True] == topic.ends
    assert 4 == topic.offsets["0"]


def test_a_client_is_asked_nothing_in_its_own_callback() -> None:
    """It would lose what its next callback needs, and end the process."""
    topic = Topic([Told(0)], end=1)
    topic.member.run()

    assert [False, False] == topic.asked
    assert 0 == topic.offsets["0"]


def test_a_fatal_error_in_place_of_a_message_costs_the_client() -> None:
    """The library gives it with the code alone; a new client goes on."""
    topic = Topic([Told(0)], [Told(code=CODES._FATAL)], [Told(1)])
    topic.member.run()

    assert not CODES(CODES._FATAL).fatal()
    assert (2, 1) == (topic.clients, topic.offsets["0"])


def test_a_fatal_error_while_it_waits_for_the_store_costs_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is said while a commit is slow is heard too; the commit ends, and is not repeated."""
    monkeypatch.setattr(member, "PATIENCE_SECONDS", 0.0)
    topic, slow = Topic([Told(0)], [Told(1)], [Told(1)]), Future[IngestReport]()
    monkeypatch.setattr(topic.claims, "_submit", lambda *_: slow)

    def poll(_seconds: float) -> Told:
        monkeypatch.setattr(topic.claims, "_submit", topic.submit)
        topic.offsets["0"] = 0
        slow.set_result(IngestReport())
        return Told(code=CODES._FATAL)

    monkeypatch.setattr(topic, "poll", poll)
    topic.offsets["0 begin"] = 0
    topic.member.run()

    assert (2, [0, 1], 1) == (topic.clients, topic.assigned, topic.offsets["0"])


@pytest.mark.parametrize("says", ["nothing", "an error"])
def test_nothing_is_at_its_end_while_the_partitions_are_not_known(
    monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """It waits until the broker says how many there are."""
    topic = Topic([Told(0, CODES._PARTITION_EOF)])
    known, ends = topic.list_topics, []

    def list_topics(*names: object, **limits: object) -> object:
        ends.append(topic.claims.are_at_end)
        if len(ends) == 3:
            return known()
        if says == "nothing":
            raise confluent_kafka.KafkaException(CODES(CODES._TRANSPORT))
        found = SimpleNamespace(error=CODES(CODES.LEADER_NOT_AVAILABLE), partitions={})
        return SimpleNamespace(topics={"t": found})

    monkeypatch.setattr(topic, "list_topics", list_topics)
    topic.member.run()

    assert [False, False, False] == ends
    assert topic.claims.are_at_end


def test_a_store_with_too_much_to_do_is_waited_for_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which topic it is and where it begins are noted as soon as there is room."""
    topic, left = Topic([Told(0)]), [3]
    del topic.offsets["feed"]

    def submit(decoded: object, offsets: Mapping[str, int]) -> Future[IngestReport]:
        left[0] -= 1
        if left[0] >= 0:
            raise OverloadedError("too much", retry_after_seconds=1)
        return topic.submit(decoded, offsets)

    monkeypatch.setattr(topic.claims, "_submit", submit)
    topic.member.run()

    assert {"feed": TOPIC_ID, "0 begin": 0, "0": 0} == topic.offsets


def test_what_goes_before_the_first_message_is_read_is_a_gap() -> None:
    """Where a partition began is noted when it is taken first, though it has nothing."""
    fresh = Topic(first=0, end=0)
    fresh.member.run()
    later = Topic([Told(0, CODES._AUTO_OFFSET_RESET)], first=100, end=100)
    later.offsets.update(fresh.offsets)
    with pytest.raises(TopicMismatchError, match="--accept-gap") as caught:
        later.member.run()

    assert {"feed": TOPIC_ID, "0 begin": 0} == fresh.offsets
    assert ([0], [0]) == (fresh.assigned, later.assigned)
    assert "100" not in caught.value.message


def test_places_without_a_message_at_the_end_are_stored_as_read() -> None:
    """Marks of transactions are no gap when they are deleted; what follows them goes on."""
    end = [Told(0), Told(3, CODES._PARTITION_EOF)]
    topic = Topic(
        end, [], [], [Told(3), Told(6, CODES._PARTITION_EOF), Told(6)], [], first=0, end=3
    )
    stored: list[dict[str, int]] = []
    note = topic.submit

    def submit(decoded: object, offsets: Mapping[str, int]) -> Future[IngestReport]:
        stored.append(dict(offsets))
        return note(decoded, offsets)

    topic.claims._submit = submit
    topic.member.run()

    assert [{"0 begin": 0}, {"0": 0}, {"0": 2}, {"0": 6}] == stored
    assert topic.claims.are_at_end


@pytest.mark.parametrize("is_own", [True, False])
def test_a_gap_is_counted_where_it_is_stored(monkeypatch: pytest.MonkeyPatch, is_own: bool) -> None:
    """Who loses the partition meanwhile counts nothing."""
    topic = Topic([Told(5, CODES._AUTO_OFFSET_RESET)], first=9, end=9)
    topic.offsets["0"] = 4
    topic.member._accept_gap = True
    marks = topic.get_watermark_offsets

    def taken(*place: object, **limits: object) -> tuple[int, int]:
        if not is_own:
            topic.claims.take("another", [0])
        return marks()

    monkeypatch.setattr(topic, "get_watermark_offsets", taken)
    topic.member.run()

    assert ([4] if is_own else [], 8 if is_own else 4) == (topic.losses, topic.offsets["0"])
