"""Snapshots: what is true of some keys, and growing deltas."""

import datetime as dt
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings

from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.manifest import Manifest
from dpdau.activity.masks import MASKS, days_of
from dpdau.activity.runs import row_count
from dpdau.activity.turnstile import fold
from dpdau.domain import Event, Op
from strategies import batch, event_streams

FIRST = dt.date(2026, 1, 1)

Open = Callable[..., EmbeddedStore]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=event_streams(max_size=30))
def test_a_lookup_finds_exactly_the_days_of_its_keys(
    tmp_path_factory, tiny: StoreLimits, stream: list[Event]
) -> None:
    """Whatever the level, a lookup gives the pairs of the asked keys and no others."""
    clock = lambda: dt.datetime(2026, 3, 1, tzinfo=dt.UTC)  # noqa: E731
    store = EmbeddedStore(tmp_path_factory.mktemp("store"), clock=clock, limits=tiny)
    for event in stream:
        store.apply(batch([event]))
    asked = sorted({event.pseudonym for event in stream[::2]})
    found = store._access._history.snapshot((MASKS,)).lookup(
        MASKS, np.array(asked, dtype=np.uint64)
    )
    pairs = {
        (who, day)
        for page, rows in found.items()
        for who, add in zip(rows.key.tolist(), rows.values[0].tolist(), strict=True)
        for day in days_of(page, add)
    }
    store.close()

    assert {pair for pair in fold(stream).pairs if pair[0] in asked} == pairs


def test_a_snapshot_reads_only_new_commits(open_store: Open, monkeypatch) -> None:
    """A second snapshot adds the commits since the first, and an earlier one stays as it was."""
    writer, reader = open_store(limits=StoreLimits()), open_store(read_only=True)
    read: list[int] = []
    real = Manifest.payload
    monkeypatch.setattr(
        Manifest, "payload", lambda self, ref: read.append(ref.seq) or real(self, ref)
    )
    snapshots = {reader: [], writer: []}
    for who in range(3):
        writer.apply(batch([Event(who, Op.ADD, 20_000)]))
        for store, seen in snapshots.items():
            seen.append(store._access._history.snapshot((MASKS,)))

    # Each was read once, by the reader: the writer has its own commits in memory.
    assert 3 == len(set(read)) == len(read)
    for seen in snapshots.values():
        assert [1, 2, 3] == [row_count(one.deltas["masks"]) for one in seen]
