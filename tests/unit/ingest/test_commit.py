"""Group commit: one durable write for many senders, and each of them with a report of its own."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau.activity.store import Applied
from dpdau.domain import EventBatch
from dpdau.errors import DpdauError, OverloadedError, StoreUnavailableError, TooLargeError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.commit import GroupCommit, QueueLimits
from dpdau.pseudonym import Pseudonymizer
from dpdau.pseudonym.epochs import EpochKey
from events_in_rows import events

PSEUDONYMIZER = Pseudonymizer([EpochKey(1, bytes(32))])
WAIT_SECONDS = 20


class Store:
    """A store that waits at a gate, and keeps what it was given; it may refuse."""

    def __init__(self, refuses: Callable[[Sequence[EventBatch]], DpdauError | None]) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.groups: list[list[EventBatch]] = []
        self.tended = 0
        self._refuses = refuses

    def apply_many(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """Takes a group, or raises."""
        self.entered.release()
        assert self.gate.wait(WAIT_SECONDS)
        refusal = self._refuses(batches)
        if refusal is not None:
            raise refusal
        self.groups.append(list(batches))
        return [Applied(one.events, 0, 0) for one in batches]

    def tend(self) -> None:
        """Fails, as it may."""
        self.tended += 1
        raise StoreUnavailableError("Expected a disk with room, found none.")


Make = Callable[..., tuple[Store, GroupCommit]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a store and the road into it."""
    made: list[tuple[Store, GroupCommit]] = []

    def new(
        refuses: Callable[[Sequence[EventBatch]], DpdauError | None] = lambda _: None, **more: Any
    ) -> tuple[Store, GroupCommit]:
        store = Store(refuses)
        more = {"pseudonymizer": lambda: PSEUDONYMIZER, **more}
        made.append((store, GroupCommit(store, **more)))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for store, commits in made:
        store.gate.set()
        commits.close()


def first_in_flight(store: Store, commits: GroupCommit) -> Future[IngestReport]:
    """A request that the writer has in its hands, so that the next ones wait."""
    sent = commits.submit(events(1))
    assert store.entered.acquire(timeout=WAIT_SECONDS)
    return sent


def test_what_waits_is_one_group(make: Make) -> None:
    """All that came while a group was written is the next group, in order; each gets its own."""
    store, commits = make()
    first = first_in_flight(store, commits)
    sent = [commits.submit(events(count, bad=count), batch_id=f"b{count}") for count in (2, 3)]
    assert not any(one.done() for one in (first, *sent))
    store.gate.set()

    reports = [one.result(WAIT_SECONDS) for one in (first, *sent)]
    assert [(1, 1, 0), (4, 2, 2), (6, 3, 3)] == [
        (one.received, one.accepted, one.rejected_count) for one in reports
    ]
    assert [[1], [2, 3]] == [[one.events for one in group] for group in store.groups]
    ids = [one.batch_id for one in store.groups[1]]
    assert None not in ids
    assert 2 == len(set(ids) - {"b2", "b3"})


def test_other_work_is_done_alone_and_in_its_place(make: Make) -> None:
    """What was submitted before it is written before it, and what comes later after it."""
    store, commits = make()
    sent = [first_in_flight(store, commits), commits.submit(events(2))]
    groups = commits.alone(lambda: [len(group) for group in store.groups])
    sent.append(commits.submit(events(3)))
    failing = commits.alone(lambda: 1 // 0)
    assert not groups.done()
    store.gate.set()

    assert [1, 1] == groups.result(WAIT_SECONDS)
    assert isinstance(failing.exception(WAIT_SECONDS), ZeroDivisionError)
    assert [1, 2, 3] == [one.result(WAIT_SECONDS).accepted for one in sent]
    assert [[1], [2], [3]] == [[one.events for one in group] for group in store.groups]
    commits.close()
    with pytest.raises(StoreUnavailableError):
        commits.alone(list)


def test_a_group_is_bounded(make: Make) -> None:
    """A group ends before it would be too large, and has one request at least."""
    store, commits = make(limits=QueueLimits(group_events_max=4))
    sent = [first_in_flight(store, commits), *(commits.submit(events(n)) for n in (2, 2, 9, 1))]
    store.gate.set()
    for one in sent:
        one.result(WAIT_SECONDS)

    assert [[1], [2, 2], [9], [1]] == [[one.events for one in group] for group in store.groups]


@pytest.mark.parametrize("limits", [QueueLimits(events_max=5), QueueLimits(requests_max=2)])
def test_too_much_is_refused_at_once(make: Make, limits: QueueLimits) -> None:
    """What does not fit is refused with a time to come again; what waits is not harmed."""
    store, commits = make(limits=limits)
    sent = [first_in_flight(store, commits), *(commits.submit(events(2)) for _ in range(2))]
    with pytest.raises(OverloadedError) as caught:
        commits.submit(events(2))
    store.gate.set()

    assert {"retry_after_seconds": 1} == caught.value.facts
    assert [1, 2, 2] == [one.result(WAIT_SECONDS).accepted for one in sent]
    assert 2 == commits.submit(events(2)).result(WAIT_SECONDS).accepted


def test_a_request_larger_than_the_queue_is_taken_alone(make: Make) -> None:
    """With nothing before it, a request of any size is taken."""
    store, commits = make(limits=QueueLimits(events_max=5))
    store.gate.set()

    assert 50 == commits.submit(events(50)).result(WAIT_SECONDS).accepted


def test_nothing_to_store_is_answered_without_the_store(make: Make) -> None:
    """A body of rejections alone waits for nobody; offsets are stored without events."""
    store, commits = make()
    assert 3 == commits.submit(events(0, bad=3)).result(0).rejected_count
    sent = commits.submit(events(0), offsets={"source": 7})
    store.gate.set()

    assert 0 == sent.result(WAIT_SECONDS).received
    assert [{"source": 7}] == [one.offsets for one in store.groups[0]]


def test_a_bad_request_fails_alone(make: Make) -> None:
    """Where a group fails, its requests are written one by one."""

    def refuses(batches: Sequence[EventBatch]) -> DpdauError | None:
        bad = any(one.events == 3 for one in batches)
        return TooLargeError("Expected fewer pairs, found more.") if bad else None

    store, commits = make(refuses)
    sent = [first_in_flight(store, commits), *(commits.submit(events(n)) for n in (2, 3, 4))]
    store.gate.set()

    assert [1, 2, None, 4] == [
        None if one.exception(WAIT_SECONDS) else one.result().accepted for one in sent
    ]
    assert isinstance(sent[2].exception(), TooLargeError)


def test_a_store_that_cannot_write_is_not_asked_for_ever(make: Make) -> None:
    """Once two requests in a row met a store that cannot write, the others are told the same."""
    asked = []

    def refuses(batches: Sequence[EventBatch]) -> DpdauError | None:
        asked.append(len(batches))
        return StoreUnavailableError("Expected a disk with room, found none.")

    store, commits = make(refuses)
    sent = [first_in_flight(store, commits), *(commits.submit(events(1)) for _ in range(9))]
    store.gate.set()

    errors = [one.exception(WAIT_SECONDS) for one in sent]
    assert [StoreUnavailableError] * 10 == [type(one) for one in errors]
    assert [1, 9, 1, 1] == asked


def test_a_bug_ends_neither_the_writer_nor_the_others(make: Make) -> None:
    """What only a bug can raise is the sender's error too, and the next one is written."""
    broken = iter([True, False])

    def before() -> None:
        assert not next(broken)

    store, commits = make(before=before)
    store.gate.set()

    assert isinstance(commits.submit(events(1)).exception(WAIT_SECONDS), AssertionError)
    assert 1 == commits.submit(events(1)).result(WAIT_SECONDS).accepted


def test_keys_are_asked_for_just_before_the_write(make: Make) -> None:
    """The keys of a request that waited are those of its group, not of its arrival."""
    keys = iter([PSEUDONYMIZER, Pseudonymizer([EpochKey(2, bytes(range(32)))])])
    asked: list[int] = []

    def pseudonymizer() -> Pseudonymizer:
        asked.append(threading.get_ident())
        return next(keys)

    store, commits = make(pseudonymizer=pseudonymizer)
    sent = [first_in_flight(store, commits), commits.submit(events(1)), commits.submit(events(1))]
    assert 1 == len(asked)
    store.gate.set()
    for one in sent:
        one.result(WAIT_SECONDS)

    names = [batch.pseudonym[0] for group in store.groups for batch in group]
    assert (2, 1) == (len(asked), len(set(asked)))
    assert names[0] != names[1] == names[2]
    assert threading.get_ident() not in asked


def test_closing_writes_what_waits_and_refuses_the_rest(make: Make) -> None:
    """What was submitted before is durable when it returns; later requests are refused."""
    store, commits = make()
    sent = [first_in_flight(store, commits), *(commits.submit(events(1)) for _ in range(5))]
    store.gate.set()
    commits.close()
    commits.close()

    assert [1] * 6 == [one.result(0).accepted for one in sent]
    assert 2 == store.tended
    with pytest.raises(StoreUnavailableError):
        commits.submit(events(1))


def test_a_sender_that_is_gone_costs_nobody(make: Make) -> None:
    """A request that was canceled while it waited is not written; the others are."""
    store, commits = make()
    first = first_in_flight(store, commits)
    gone, other = commits.submit(events(7)), commits.submit(events(2))
    assert gone.cancel()
    store.gate.set()

    assert [1, 2] == [one.result(WAIT_SECONDS).accepted for one in (first, other)]
    assert [[1], [2]] == [[one.events for one in group] for group in store.groups]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), max_size=30), senders=st.integers(1, 4))
def test_nothing_is_lost_or_taken_twice(sizes: list[int], senders: int) -> None:
    """However many send at once, each event is stored once, and each report is its own."""
    store = Store(lambda _: None)
    store.gate.set()
    limits = QueueLimits(group_events_max=6)
    commits = GroupCommit(store, pseudonymizer=lambda: PSEUDONYMIZER, limits=limits)  # type: ignore[arg-type]
    reports: list[tuple[int, int]] = []

    def send(mine: list[int]) -> None:
        for size in mine:
            reports.append((size, commits.submit(events(size)).result(WAIT_SECONDS).accepted))

    threads = [threading.Thread(target=send, args=(sizes[one::senders],)) for one in range(senders)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    commits.close()

    assert [size for size, _ in reports] == [accepted for _, accepted in reports]
    assert sum(sizes) == sum(one.events for group in store.groups for one in group)
