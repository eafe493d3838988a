"""Where the time of an event goes on its way into the store, beside the limit of each stage.

    python -m benchmarks.stages FILE

Reads one file of events, stage by stage and one stage at a time, in CPU time of this process; the
limit of a stage is the least that any program must do there, done here with the bare library.
Prints one JSON object.
"""

import datetime as dt
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from dpdau.activity import masks
from dpdau.activity.embedded import EmbeddedStore
from dpdau.app import ingest_rules
from dpdau.domain import EventBatch
from dpdau.ingest.batch import build
from dpdau.ingest.columns import DecodedTable
from dpdau.ingest.files import read
from dpdau.pseudonym import Keyring, Pseudonymizer
from dpdau.settings import Settings

NOW: Final = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
_SECRET: Final = bytes(range(48))
_CHUNKS_MAX: Final = 8
_READ_BYTES: Final = 16 << 20


class Stopwatch:
    """CPU nanoseconds by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Does some work of a stage."""
        began = time.process_time_ns()
        done = work()
        self.spent[stage] = self.spent.get(stage, 0) + time.process_time_ns() - began
        return done


def measure(path: Path) -> dict[str, Any]:
    """The stages of a file, and their limits, in nanoseconds an event."""
    ours, limits = Stopwatch(), Stopwatch()
    with tempfile.TemporaryDirectory() as name:
        keyring = Keyring.create(Path(name) / "keyring", _SECRET, clock=lambda: NOW)
        pseudonymizer = Pseudonymizer(keyring.live())
        decoded = _decoded(path, ours)
        _read_bare(path, limits, len(decoded))
        batches = [_built(one, pseudonymizer, ours, limits) for one in decoded]
        events = sum(batch.events for batch in batches)
        distinct = sum(len(one.user_ids) for one in decoded)
        size = _stored(Path(name), batches, ours, limits)
    return {
        "file": path.name,
        "events": events,
        "distinct_ids_of_chunks": distinct,
        "bytes_stored": size,
        "nanoseconds_an_event": {
            stage: {
                "dpdau": round(ours.spent[stage] / events, 1),
                "limit": round(limits.spent[stage] / events, 1),
            }
            for stage in ours.spent
        },
    }


def _decoded(path: Path, ours: Stopwatch) -> list[DecodedTable]:
    """The first chunks of a file, as the product reads and checks them."""
    rules = ingest_rules(Settings(), NOW.date())
    chunks = iter(read(path, rules=rules))
    found = []
    for _ in range(_CHUNKS_MAX):
        chunk = ours.time("read and check", lambda: next(chunks, None))
        if chunk is None:
            break
        assert isinstance(chunk.decoded, DecodedTable)
        found.append(chunk.decoded)
    return found


def _read_bare(path: Path, limits: Stopwatch, chunks: int) -> None:
    """The same columns unpacked by the library alone; of text, the bytes and their lines."""

    def parquet() -> None:
        file = pq.ParquetFile(path)
        rows = iter(file.iter_batches(1_000_000, columns=["user_id", "op", "day"]))
        for _ in range(chunks):
            next(rows, None)

    def text() -> None:
        with path.open("rb") as file:
            for _ in range(chunks):
                file.read(_READ_BYTES).splitlines()

    limits.time("read and check", parquet if path.suffix == ".parquet" else text)


def _built(
    decoded: DecodedTable, pseudonymizer: Pseudonymizer, ours: Stopwatch, limits: Stopwatch
) -> EventBatch:
    """The batch of a chunk; beside it one keyed hash for each distinct id."""
    batch = ours.time("keyed hash", lambda: build(decoded, pseudonymizer))
    ids: Sequence[bytes] = decoded.user_ids.to_pylist()
    limits.time("keyed hash", lambda: _hash_bare(ids))
    return batch


def _hash_bare(ids: Sequence[bytes]) -> None:
    copy = hashlib.blake2b(key=_SECRET, digest_size=8).copy
    for one in ids:
        hasher = copy()
        hasher.update(one)
        hasher.digest()


def _stored(root: Path, batches: Sequence[EventBatch], ours: Stopwatch, limits: Stopwatch) -> int:
    """Folds and writes the batches; beside it a sort of the keys and a write of the bytes."""
    store = EmbeddedStore(root / "activity", clock=lambda: NOW)
    whole = Stopwatch()
    for batch in batches:
        ours.time("fold", lambda batch=batch: _fold(batch))
        limits.time("fold", lambda batch=batch: np.sort(batch.pseudonym))
        whole.time("apply", lambda batch=batch: store.apply(batch))
    # The store folds too; what is left is writing, and merging what was written.
    ours.spent["write and merge"] = max(whole.spent["apply"] - ours.spent["fold"], 0)
    size = store.stats().bytes_on_disk
    store.close()
    limits.time("write and merge", lambda: _write_bare(root / "bare", size))
    return size


def _fold(batch: EventBatch) -> None:
    masks.from_rows(batch.pseudonym, batch.day, batch.add)


def _write_bare(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
