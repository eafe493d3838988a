"""Hypothesis strategies for the nouns of the product, and helpers that build them."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from dpdau.domain import Event, EventBatch, Labels, Op, day_number

FIRST_DAY = dt.date(2025, 12, 28)
"""Streams begin here: a few days before a page, a month and a year end."""
STREAM_DAYS = 90
DIMENSION_VALUES = {"platform": ("ios", "web", "tv"), "country": ("de", "fr")}

LabeledEvent = tuple[Event, Mapping[str, str]]


def pseudonyms(population: int = 6) -> st.SearchStrategy[int]:
    """A few 64-bit values, spread over all parts of the key space and its edges."""
    spread = [0, 1, 2**64 - 1, 2**63, 2**60 - 1, 2**60, *(k * 0x9E3779B97F4A7C15 for k in range(9))]
    return st.sampled_from([value % 2**64 for value in spread[:population]])


def day_numbers() -> st.SearchStrategy[int]:
    """A few days of the stream's three months, around page, month and year edges."""
    start = day_number(FIRST_DAY)
    offsets = (0, 3, 4, 28, 29, 30, 34, 35, 62, 63, 64, STREAM_DAYS - 1)
    return st.sampled_from([start + offset for offset in offsets])


def events(*, removals: bool = True) -> st.SearchStrategy[Event]:
    """One event; a small population and few days, so that events meet."""
    ops = [Op.ADD, Op.ADD, Op.REMOVE] if removals else [Op.ADD]
    return st.builds(Event, pseudonym=pseudonyms(), op=st.sampled_from(ops), day=day_numbers())


def event_streams(*, removals: bool = True, max_size: int = 24) -> st.SearchStrategy[list[Event]]:
    """A turnstile stream; with removals, about a third of the events are `-`."""
    return st.lists(events(removals=removals), min_size=1, max_size=max_size)


def dimension_labels() -> st.SearchStrategy[dict[str, str]]:
    """Values for none, some or all dimensions."""
    return st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(some) for name, some in DIMENSION_VALUES.items()}
    )


def labeled_streams(max_size: int = 24) -> st.SearchStrategy[list[LabeledEvent]]:
    """A turnstile stream whose events carry labels."""
    return st.lists(st.tuples(events(), dimension_labels()), min_size=1, max_size=max_size)


def cuts(stream: Sequence[object]) -> st.SearchStrategy[list[int]]:
    """Sorted places at which a stream is cut into batches."""
    return st.lists(st.integers(0, len(stream)), max_size=4).map(sorted)


def batch(
    stream: Iterable[Event | LabeledEvent],
    *,
    batch_id: str | None = None,
    offsets: Mapping[str, int] | None = None,
    alias: Callable[[int], Sequence[int]] | None = None,
) -> EventBatch:
    """The columns of a list of events, one row each.

    Args:
        stream: Events, with or without labels.
        batch_id: As in `EventBatch`.
        offsets: As in `EventBatch`.
        alias: Pseudonym → the same user under the older live keys, newest first.
    """
    pairs = [one if isinstance(one, tuple) else (one, {}) for one in stream]
    taken = [event for event, _ in pairs]
    older = [tuple(alias(event.pseudonym)) if alias else () for event in taken]
    keys = len(older[0]) if older else 0
    labels = {}
    for name in sorted({name for _, some in pairs for name in some}):
        values = tuple(sorted({some[name] for _, some in pairs if name in some}))
        places = {value: place for place, value in enumerate(values)}
        codes = [places.get(some.get(name, ""), -1) for _, some in pairs]
        labels[name] = Labels(values, np.array(codes, dtype=np.int32))
    return EventBatch(
        events=len(taken),
        pseudonym=np.array([event.pseudonym for event in taken], dtype=np.uint64),
        day=np.array([event.day for event in taken], dtype=np.int32),
        add=np.array([event.op is Op.ADD for event in taken], dtype=np.bool_),
        event_index=np.arange(len(taken), dtype=np.int32),
        event_id=np.array([event.event_id for event in taken], dtype=np.uint64),
        aliases=np.array(older, dtype=np.uint64).reshape(len(taken), keys).T,
        labels=labels,
        batch_id=batch_id,
        offsets=offsets or {},
    )


def columns(pseudonym: np.ndarray, day: np.ndarray, *, add: np.ndarray | None = None) -> EventBatch:
    """A batch of one-row events from whole columns."""
    size = pseudonym.shape[0]
    return EventBatch(
        events=size,
        pseudonym=pseudonym.astype(np.uint64),
        day=day.astype(np.int32),
        add=np.ones(size, dtype=np.bool_) if add is None else add,
        event_index=np.arange(size, dtype=np.int32),
        event_id=np.zeros(size, dtype=np.uint64),
        aliases=np.zeros((0, size), dtype=np.uint64),
    )
