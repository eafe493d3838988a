"""Joining batches: what one after the other gives is given at once."""

import numpy as np
import pytest

from dpdau.activity import folding
from dpdau.activity.folding import _joined, _stretches
from dpdau.domain import Event, EventBatch, Op
from strategies import batch


def put(who: int, day: int = 20_000) -> Event:
    """A `+`."""
    return Event(who, Op.ADD, day)


def joined(batches: list[EventBatch]) -> list[int]:
    """How many batches each stretch has."""
    return [one.count for one in _stretches(batches)]


def test_batches_with_other_dictionaries_keep_their_labels() -> None:
    """Codes of one dictionary become codes of the common one; a missing dimension has none."""
    some = [
        batch([(put(1), {"platform": "web"}), (put(2), {"platform": "ios", "country": "de"})]),
        batch([put(3)]),
        batch([(put(4), {"platform": "tv"}), (put(5), {"platform": "web"}), (put(6), {})]),
    ]
    whole = _joined(some)
    values = {
        name: [one.values[code] if code >= 0 else None for code in one.codes.tolist()]
        for name, one in whole.batch.labels.items()
    }

    assert ["web", "ios", None, "tv", "web", None] == values["platform"]
    assert [None, "de", None, None, None, None] == values["country"]
    assert [0, 0, 1, 2, 2, 2] == whole.number.tolist()
    assert [0, 1, 2, 3, 4, 5] == whole.batch.event_index.tolist()


def test_a_stretch_ends_where_the_keys_change() -> None:
    """By the number of keys that are named, and by names that were current before."""
    plain = batch([put(1), put(2)])
    one_alias = batch([put(11), put(12)], alias=lambda who: [who - 10])
    renamed = batch([put(21)], alias=lambda _who: [11])
    other = batch([put(13)], alias=lambda _who: [3])

    assert [2] == joined([plain, plain])
    assert [1, 1] == joined([plain, one_alias])
    assert [2] == joined([one_alias, other])
    assert [2, 1] == joined([one_alias, other, renamed])
    assert [] == joined([])


def test_names_of_a_group_under_the_same_keys_are_compared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while older keys are live, many small requests cost no more than one large one."""
    real, asked = folding._renames, []

    def counted(*some: list[EventBatch]) -> bool:
        asked.append(some)
        return real(*some)

    monkeypatch.setattr(folding, "_renames", counted)
    some = [batch([put(1000 + who)], alias=lambda one: [one - 1000]) for who in range(50)]

    assert [50] == joined(some)
    assert 1 == len(asked)


def test_what_became_of_each_batch() -> None:
    """Duplicates and late events are counted for the batch that they came with."""
    whole = _joined([batch([put(1), put(2)]), batch([]), batch([put(3)])])
    fresh = np.array([True, False, True])
    late = np.array([True, False, False])

    assert [(0, 1, 1), (0, 0, 0), (1, 0, 0)] == [
        (one.accepted, one.duplicate, one.late) for one in whole.applied(fresh, late)
    ]
