"""Group commit in the sender's own thread: at once where nothing is in the way, else as usual."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from dpdau.activity.store import Applied
from dpdau.domain import EventBatch
from dpdau.errors import OverloadedError, StoreUnavailableError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.commit import GroupCommit, QueueLimits, Request
from dpdau.ingest.event import decode_objects
from dpdau.ingest.rules import Rules
from dpdau.pseudonym import Pseudonymizer
from dpdau.pseudonym.epochs import EpochKey
from events_in_rows import TODAY, events

WAIT_SECONDS = 20
HERE = "here"


class Store:
    """A store that keeps what it was given, and who gave it; it may be busy, slow or broken."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[int]]] = []
        self.is_free = True
        self.is_broken = False
        self.tending = threading.Semaphore(0)
        self.tend_gate = threading.Event()
        self.tend_gate.set()

    def apply_many(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """Takes a group."""
        if self.is_broken:
            raise StoreUnavailableError("Expected a disk with room, found none.")
        main = threading.current_thread() is threading.main_thread()
        self.groups.append((HERE if main else "writer", [one.events for one in batches]))
        return [Applied(one.events, 0, 0) for one in batches]

    @contextlib.contextmanager
    def unless_busy(self, _wait_seconds: float) -> Iterator[bool]:
        """Whether it is free."""
        yield self.is_free

    def tend(self) -> bool:
        """Waits at its gate."""
        self.tending.release()
        assert self.tend_gate.wait(WAIT_SECONDS)
        return True


class Road:
    """A group commit over such a store whose turn is lent already."""

    def __init__(self, store: Store, limits: QueueLimits) -> None:
        self.store = store
        self.before = 0
        self.again = threading.Event()
        key = Pseudonymizer([EpochKey(1, bytes(32))])
        self.commits = GroupCommit(
            store,  # type: ignore[arg-type]
            pseudonymizer=lambda: key,
            before=self._before,
            limits=limits,
        )
        self.send(1)
        assert store.tending.acquire(timeout=WAIT_SECONDS)
        store.groups.clear()

    def send(self, *sizes: int) -> list[int]:
        """Sends requests from this thread; how many events of each were accepted."""
        sent = self.begin(*sizes)
        return [one.result(WAIT_SECONDS).accepted for one in sent]

    def begin(self, *sizes: int) -> list[Future[IngestReport]]:
        """Sends requests from this thread."""
        replies: list[Future[IngestReport]] = [Future() for _ in sizes]
        pairs = zip(sizes, replies, strict=True)
        self.submit([Request(events(size), reply) for size, reply in pairs])
        return replies

    def submit(self, requests: Sequence[Request]) -> None:
        """Sends requests as an event loop does: again as long as more waits."""
        self.commits.submit_here(requests)
        while self.commits.write_here(self.again.set):
            pass

    def _before(self) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.before += 1


@pytest.fixture
def road(request: pytest.FixtureRequest) -> Iterator[Road]:
    """A road with the limits of the test, for a minute of lent time."""
    made = Road(Store(), QueueLimits(lent_seconds=60, **getattr(request, "param", {})))
    yield made
    made.store.tend_gate.set()
    made.commits.close()


def test_requests_are_written_here_together(road: Road) -> None:
    """A group is one write in the thread that sends it; an empty request is not written."""
    assert [2, 0, 3] == road.send(2, 0, 3)
    assert [(HERE, [2, 3])] == road.store.groups
    road.submit([])
    assert 1 == len(road.store.groups)


@pytest.mark.parametrize("road", [{"lent_rows_max": 4}], indirect=True)
def test_what_takes_long_is_for_the_writer(road: Road) -> None:
    """A large request, a busy store and other work each leave the write to the other thread."""
    assert [5] == road.send(5)
    road.store.is_free = False
    assert [1] == road.send(1)
    road.store.is_free = True
    gate = threading.Event()
    done = road.commits.alone(lambda: gate.wait(WAIT_SECONDS))
    waiting = road.begin(2)
    assert not waiting[0].done()
    gate.set()

    assert done.result(WAIT_SECONDS)
    assert 2 == waiting[0].result(WAIT_SECONDS).accepted
    assert [("writer", [5]), ("writer", [1]), ("writer", [2])] == road.store.groups


def test_writes_go_on_while_the_store_is_tended(road: Road) -> None:
    """What waits in the queue is taken along first; nothing waits for the end of the upkeep."""
    road.store.tend_gate.clear()
    road.store.is_free = False
    assert [1] == road.send(1)
    assert road.store.tending.acquire(timeout=WAIT_SECONDS)
    older = road.commits.submit(events(2))
    road.store.is_free = True

    assert [3] == road.send(3)
    assert 2 == older.result(0).accepted
    assert [("writer", [1]), (HERE, [2, 3])] == road.store.groups


@pytest.mark.parametrize("road", [{"group_events_max": 1}], indirect=True)
def test_who_could_not_write_is_called_again(road: Road) -> None:
    """The writer calls before it tends, where something waits; what waits is then written here."""
    gate, entered = threading.Event(), threading.Event()
    road.commits.alone(lambda: entered.set() or gate.wait(WAIT_SECONDS))
    assert entered.wait(WAIT_SECONDS)
    road.store.tend_gate.clear()
    first, second = road.begin(1, 2)
    gate.set()

    assert road.again.wait(WAIT_SECONDS)
    assert 1 == first.result(0).accepted
    assert not second.done()
    road.submit([])
    assert 2 == second.result(0).accepted
    assert [("writer", [1]), (HERE, [2])] == road.store.groups


def test_the_order_is_that_of_the_queue(road: Road) -> None:
    """What the writer has in its hands is written before what came after it."""
    gate, entered = threading.Event(), threading.Event()
    road.commits.alone(lambda: entered.set() or gate.wait(WAIT_SECONDS))
    assert entered.wait(WAIT_SECONDS)
    older = [road.commits.submit(events(one)) for one in (1, 2)]
    younger = road.begin(3)
    gate.set()

    assert [1, 2, 3] == [one.result(WAIT_SECONDS).accepted for one in (*older, *younger)]
    assert [1, 2, 3] == [size for _, group in road.store.groups for size in group]


def test_an_event_with_many_days_is_not_small(road: Road) -> None:
    """What counts is the pairs that a request touches: thousands are the writer's."""
    days = [f"2026-0{1 + day // 28}-{1 + day % 28:02d}" for day in range(50)]
    gone = {"user_id": "u", "op": "-", "metadata": {"days": days}}
    many = decode_objects([gone] * 300, rules=Rules(TODAY))
    reply: Future[IngestReport] = Future()
    request = Request(many, reply)
    road.submit([request])

    assert (300, 15_000) == (request.size, request.rows)
    assert 300 == reply.result(WAIT_SECONDS).accepted
    assert [("writer", [300])] == road.store.groups


@pytest.mark.parametrize("road", [{"lent_commits": 4}], indirect=True)
def test_the_writer_looks_after_the_store_in_time(road: Road) -> None:
    """When half of what was lent is used, the writer prepares and tends, and lends again."""
    for _ in range(2):
        before = road.before
        road.send(1)
        road.send(1)
        assert road.store.tending.acquire(timeout=WAIT_SECONDS)
        assert before + 1 == road.before
    assert [HERE] * 4 == [who for who, _ in road.store.groups]


@pytest.mark.parametrize("road", [{"lent_commits": 4}], indirect=True)
def test_not_more_is_written_here_than_was_lent(road: Road) -> None:
    """With the writer held up, what goes beyond its loan waits for it."""
    road.store.tend_gate.clear()
    for _ in range(2):
        road.send(1)
    # From here on the writer is held up, and has lent anew.
    assert road.store.tending.acquire(timeout=WAIT_SECONDS)
    for _ in range(4):
        road.send(1)
    last = road.begin(1)
    assert not last[0].done()
    road.store.tend_gate.set()

    assert 1 == last[0].result(WAIT_SECONDS).accepted
    assert [HERE] * 6 + ["writer"] == [who for who, _ in road.store.groups]


def test_a_store_that_fails_is_left_to_the_writer(road: Road) -> None:
    """The senders are told, and the next ones are written by the other thread for a while."""
    road.store.is_broken = True
    failed = [one.exception(WAIT_SECONDS) for one in road.begin(1, 2)]
    road.store.is_broken = False

    assert all(isinstance(one, StoreUnavailableError) for one in failed)
    assert [2] == road.send(2)
    assert [("writer", [2])] == road.store.groups


@pytest.mark.parametrize("road", [{"lent_commit_seconds_max": -1.0}], indirect=True)
def test_a_slow_store_is_left_to_the_writer(road: Road) -> None:
    """After a write that took too long, the next ones are the other thread's."""
    assert [[1], [2]] == [road.send(1), road.send(2)]
    assert [(HERE, [1]), ("writer", [2])] == road.store.groups


def test_a_sender_that_is_gone_costs_nobody(road: Road) -> None:
    """A request that was canceled before its write is not written; the others are."""
    gone: Future[IngestReport] = Future()
    other: Future[IngestReport] = Future()
    gone.cancel()
    road.submit([Request(events(7), gone), Request(events(2), other)])

    assert 2 == other.result(0).accepted
    assert [(HERE, [2])] == road.store.groups


@pytest.mark.parametrize("road", [{"requests_max": 1}], indirect=True)
def test_too_much_is_refused(road: Road) -> None:
    """Where requests have to wait and too many do, the reply is the refusal; after close too."""
    gate, entered = threading.Event(), threading.Event()
    road.commits.alone(lambda: entered.set() or gate.wait(WAIT_SECONDS))
    assert entered.wait(WAIT_SECONDS)
    first, second = road.begin(1, 1)
    assert isinstance(second.exception(0), OverloadedError)
    gate.set()
    assert 1 == first.result(WAIT_SECONDS).accepted
    road.commits.close()

    assert isinstance(road.begin(1)[0].exception(0), StoreUnavailableError)
