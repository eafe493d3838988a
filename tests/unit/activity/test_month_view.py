"""What an open month counts, over page edges and levels of the store."""

import dataclasses
import datetime as dt
from collections.abc import Callable

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.segments import SegmentFiles
from dpdau.domain import Event, Op, day_number
from stores import TINY
from strategies import batch

Open = Callable[..., EmbeddedStore]
WINDOWS = (1, 2, 7, 30, 63, 64)


@pytest.mark.parametrize("month", ["1969-12", "1970-02", "1970-03", "2026-02", "2026-03"])
def test_windows_over_page_edges_equal_the_counts(open_store: Open, month: str) -> None:
    """Where nothing is late, a month counts what the store counts, for every window."""
    store = open_store()
    first = dt.date.fromisoformat(f"{month}-01")
    start = day_number(first)
    who = [one * 0x9E3779B97F4A7C15 % 2**64 for one in range(1, 41)]
    store.apply(batch([Event(one, Op.ADD, start + 9 - at * 2) for at, one in enumerate(who)]))
    store.apply(batch([Event(one, Op.ADD, start + at % 10) for at, one in enumerate(who[::3])]))
    store.open_month(month, lookback_days=64)
    for offset in range(10):
        day = first + dt.timedelta(days=offset)
        store.freeze(month, day)
        expected = store.counts(first=day, last=day, window_days=WINDOWS)[:, 0]
        actual = store.contributions(month, day, window_days=WINDOWS)

        assert [expected.tolist()] == actual.tolist()


def test_the_next_day_is_counted_from_what_upkeep_merged(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once nothing is left to tend, a day of a month of many files is counted without reading."""
    store = open_store(limits=dataclasses.replace(TINY, part_files_max=9, cache_bytes_max=1 << 20))
    first = dt.date(2026, 2, 1)
    for back in (0, 1, 9):
        start = day_number(first) - back
        store.apply(batch([Event(one << 58 | back, Op.ADD, start) for one in range(1, 40)]))
        while not store.tend():
            pass
    store.open_month("2026-02", lookback_days=30)
    assert store.tend()
    store.freeze("2026-02", first)
    read: list[str] = []
    rows = SegmentFiles.rows

    def watched(files: SegmentFiles, *args: object, **named: object) -> object:
        if named.get("cached") is False:
            read.append(str(args[1]))
        return rows(files, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentFiles, "rows", watched)

    actual = store.contributions("2026-02", first, window_days=WINDOWS[:4]).tolist()

    assert [] == read
    assert store.counts(first=first, last=first, window_days=WINDOWS[:4]).T.tolist() == actual
