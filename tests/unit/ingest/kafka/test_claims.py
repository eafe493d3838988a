"""Who may write what of a partition, without a broker."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from dpdau.errors import TopicMismatchError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.messages import NOTHING, Batch


class Store:
    """Commits that end when the test says so."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}
        self.waiting: list[tuple[Mapping[str, int], Future[IngestReport]]] = []
        self.is_asked = threading.Event()

    def submit(self, _decoded: object, offsets: Mapping[str, int]) -> Future[IngestReport]:
        future: Future[IngestReport] = Future()
        self.waiting.append((offsets, future))
        self.is_asked.set()
        return future

    def commit(self) -> None:
        offsets, future = self.waiting.pop(0)
        self.offsets.update(offsets)
        future.set_result(IngestReport())


def claims_over(store: Store) -> Claims:
    """Claims whose sources are named by their partitions."""
    return Claims(
        submit=store.submit,
        offset=store.offsets.get,
        source=lambda one: f"p{one}",
        feed="feed",
    )


def test_a_member_starts_behind_what_is_stored() -> None:
    """A partition comes with the place behind its stored offset, that where it began, or none."""
    store = Store()
    store.offsets.update({"p1": 41, "p1 begin": 7, "p2 begin": 0})

    assert {0: None, 1: 42, 2: 0} == claims_over(store).take("a", [0, 1, 2])


def test_who_gets_a_partition_waits_for_the_commit_of_who_had_it() -> None:
    """The stored offset is looked at when what was in flight is durable."""
    store = Store()
    claims = claims_over(store)
    claims.take("a", [0])
    claims.submit("a", Batch(NOTHING, (), {0: 9}))
    found: list[dict[int, int | None]] = []
    taking = threading.Thread(target=lambda: found.append(claims.take("b", [0])))
    taking.start()
    taking.join(0.05)
    before = list(found)
    store.commit()
    taking.join()

    assert ([], [{0: 10}]) == (before, found)


def test_who_lost_a_partition_writes_no_more_of_it() -> None:
    """A batch that is late is not submitted, also where only a part of it was lost."""
    store = Store()
    claims = claims_over(store)
    claims.take("a", [0, 1])
    claims.take("b", [1])

    assert claims.submit("a", Batch(NOTHING, (), {0: 5, 1: 5})) is None
    assert claims.submit("b", Batch(NOTHING, (), {1: 5})) is not None
    assert 1 == len(store.waiting)


def test_what_is_dropped_belongs_to_nobody() -> None:
    """A member that left can write nothing, and has no partition."""
    store = Store()
    claims = claims_over(store)
    claims.take("a", [0, 1])
    dropped = claims.drop("a")

    assert [0, 1] == dropped
    assert claims.submit("a", Batch(NOTHING, (), {0: 5})) is None
    assert 0 == claims.count


def test_the_end_is_where_every_partition_of_the_topic_has_ended() -> None:
    """The end is the first that was seen, however much comes behind it; none is known at first."""
    claims = claims_over(Store())
    claims.come_to({0: 99})
    unknown = claims.are_at_end
    claims.aim({0: 10}, count=2)
    claims.come_to({0: 9})
    before = claims.are_at_end
    claims.aim({0: 20, 1: 5}, count=2)
    claims.come_to({0: 10, 1: 4})
    one = claims.are_at_end
    claims.come_to({1: 6})

    assert (False, False, False, True) == (unknown, before, one, claims.are_at_end)
    assert (True, False) == (claims.has_aim(1), claims.has_aim(2))


def test_another_topic_under_the_name_is_refused() -> None:
    """Which topic it was is noted once, and only that one is read; also after an older version."""
    store = Store()
    claims = claims_over(store)
    noting = threading.Thread(target=claims.require_topic, args=(2**61 + 7,))
    noting.start()
    assert store.is_asked.wait(10)
    store.commit()
    noting.join()
    noted = dict(store.offsets)
    claims.require_topic(2**61 + 7)

    assert {"feed": 2**61 + 7} == noted
    with pytest.raises(TopicMismatchError, match="KAFKA_TOPIC"):
        claims.require_topic(2**61 + 8)


def test_what_is_passed_over_is_stored_by_its_owner_alone() -> None:
    """The offset is durable when it returns; who lost the partition stores nothing, and hears."""
    store = Store()
    claims = claims_over(store)
    claims.take("a", [0])
    passing = threading.Thread(target=claims.pass_over, args=("a", {0: 41}))
    passing.start()
    assert store.is_asked.wait(10)
    store.commit()
    passing.join()
    claims.take("b", [0])

    assert claims.pass_over("a", {0: 99}) is False
    assert {"p0": 41} == store.offsets
    assert [] == store.waiting
