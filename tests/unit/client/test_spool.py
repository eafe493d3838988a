"""The spool: bounded, in order, and there again after its process is gone."""

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.client import spool as module
from dpdau.client.spool import Spool
from dpdau.errors import SpoolFullError, SpoolUnavailableError

CANARY = b"canary-user-5e10"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "spool"


def opened(folder: Path, **limits: Any) -> Spool:
    """A spool with small limits, a clock that counts and ids that tell their turn."""
    numbers, ticks = count(1), count()
    return Spool(
        folder,
        **{"bytes_max": 10_000, "batch_bytes_max": 1_000, "batch_weight_max": 3, **limits},
        new_batch_id=lambda: f"{folder.name}-{os.urandom(4).hex()}-{next(numbers)}",
        monotonic=lambda: float(next(ticks)),
    )


def lines(*texts: str) -> list[tuple[bytes, int]]:
    """Events of weight 1."""
    return [(text.encode(), 1) for text in texts]


def drained(spool: Spool) -> Iterator[list[str]]:
    """The batches in their order, each removed before the next one is looked at."""
    while (batch := spool.head(seal_open=True)) is not None:
        events = [event.decode() for event in spool.read(batch).events]
        spool.remove(batch)
        yield events


def test_events_come_back_in_their_order(folder: Path) -> None:
    """A batch is sealed when it is full, or when it is asked for."""
    spool = opened(folder)
    spool.append(lines("a", "b"))
    spool.append(lines("c", "d", "e", "f", "g"))

    assert [["a", "b", "c"], ["d", "e", "f"], ["g"]] == list(drained(spool))
    assert 0 == spool.size_bytes


@given(
    calls=st.lists(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 5)))),
    weight_max=st.integers(1, 6),
    bytes_max=st.integers(60, 200),
)
def test_batches_keep_their_limits(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[list[tuple[bytes, int]]],
    weight_max: int,
    bytes_max: int,
) -> None:
    """Whatever comes in, a batch is within the limits or of one event, and nothing is missing."""
    folder = tmp_path_factory.mktemp("spool")
    spool = opened(folder, batch_weight_max=weight_max, batch_bytes_max=bytes_max, bytes_max=10**6)
    for call in calls:
        spool.append(call)
    weights = dict(
        zip(range(10**4), (weight for call in calls for _, weight in call), strict=False)
    )
    sent = [line for call in calls for line, _ in call]
    found: list[bytes] = []
    while (batch := spool.head(seal_open=True)) is not None:
        events = spool.read(batch).events
        weight = sum(weights[len(found) + place] for place in range(len(events)))
        size = sum(len(event) + 8 for event in events)
        assert len(events) == 1 or (weight <= weight_max and size <= bytes_max)
        found += events
        spool.remove(batch)
    spool.close()

    assert sent == found


def test_another_process_finds_what_was_left(folder: Path) -> None:
    """After a close every batch is there under its id, and new events come after them."""
    first = opened(folder)
    first.append(lines("a", "b", "c", "d"))
    batch = first.head(seal_open=True)
    assert batch is not None
    name = first.read(batch).batch_id
    first.close()

    second = opened(folder)
    second.append(lines("e"))
    again = second.head(seal_open=False)

    assert again is not None
    assert name == second.read(again).batch_id
    assert [["a", "b", "c"], ["d"], ["e"]] == list(drained(second))


def test_what_was_sealed_is_never_appended_to(folder: Path) -> None:
    """What a batch holds when it is first sent is what it holds for ever."""
    spool = opened(folder)
    spool.append(lines("a"))
    batch = spool.head(seal_open=True)
    assert batch is not None
    before = spool.read(batch)
    spool.append(lines("b"))

    assert before == spool.read(batch)


def test_a_full_spool_takes_nothing(folder: Path) -> None:
    """Over its bytes it raises, takes none of the call, and has room again after a removal."""
    spool = opened(folder, bytes_max=300)
    spool.append(lines("x" * 100, "y" * 100))

    with pytest.raises(SpoolFullError) as caught:
        spool.append(lines("z", "z" * 100))

    assert {"taken": 0} == caught.value.facts
    assert [["x" * 100, "y" * 100]] == list(drained(spool))
    spool.append(lines("z" * 100))
    assert [["z" * 100]] == list(drained(spool))


def test_a_disk_that_is_full_leaves_whole_events(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the disk cut short is taken back, and the error says how many events are in."""
    spool = opened(folder)
    write, left = os.write, [60]

    def short(handle: int, body: Any) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(handle, bytes(body)[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(module.os, "write", short)
    with pytest.raises(SpoolFullError) as nothing:
        spool.append([(CANARY * 3, 1)])
    left[0] = 200
    with pytest.raises(SpoolFullError) as some:
        spool.append([*lines("a", "b", "c"), (CANARY * 20, 1)])
    left[0] = 10_000
    spool.append(lines("d"))

    assert (0, 3) == (nothing.value.facts["taken"], some.value.facts["taken"])
    assert CANARY.decode() not in f"{nothing.value}{some.value}{nothing.value.__cause__}"
    assert [["a", "b", "c"], ["d"]] == list(drained(spool))


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_cut_off_end_costs_only_the_last_event(folder: Path, cut: int) -> None:
    """A file that ends within a record is read up to it, and its id stays."""
    spool = opened(folder)
    spool.append(lines("first", "second-event-that-is-cut"))
    spool.close()
    (path,) = folder.glob("*.batch")
    path.write_bytes(path.read_bytes()[:-cut])

    again = opened(folder)
    batch = again.head(seal_open=False)
    assert batch is not None
    contents = again.read(batch)

    assert contents.is_intact
    assert [b"first"] == list(contents.events)


@pytest.mark.parametrize("size", [0, 5, 20])
def test_a_file_without_a_whole_id_is_empty(folder: Path, size: int) -> None:
    """The first record was cut off: there is no event."""
    spool = opened(folder)
    spool.append(lines("a"))
    spool.close()
    (path,) = folder.glob("*.batch")
    path.write_bytes(path.read_bytes()[:size])

    assert [[]] == list(drained(opened(folder)))


def test_a_file_that_was_deleted_is_empty(folder: Path) -> None:
    """Somebody took it out of the folder: what is behind it is not held up."""
    spool = opened(folder)
    spool.append(lines("a", "b", "c", "d"))
    (folder / "0000000000000001.batch").unlink()

    assert [[], ["d"]] == list(drained(spool))
    assert 0 == spool.size_bytes


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EDQUOT, SpoolFullError), (errno.EROFS, SpoolUnavailableError)],
)
def test_what_a_failing_disk_is_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """No room is something else than a disk that takes nothing."""
    spool = opened(folder)

    def fails(handle: int, body: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "write", fails)
    with pytest.raises(kind) as caught:
        spool.append(lines("a"))

    assert {"taken": 0} == caught.value.facts


def test_zeros_at_the_end_are_no_events(folder: Path) -> None:
    """What a power failure left of a file ends it."""
    spool = opened(folder)
    spool.append(lines("a"))
    spool.close()
    (path,) = folder.glob("*.batch")
    path.write_bytes(path.read_bytes() + bytes(40))

    again = opened(folder)
    batch = again.head(seal_open=False)
    assert batch is not None
    assert again.read(batch).is_intact
    assert [["a"]] == list(drained(again))


def test_a_wrong_checksum_is_seen_and_the_file_kept(folder: Path) -> None:
    """The events before the fault are read; the file can be moved out of the way as it is."""
    spool = opened(folder)
    spool.append(lines("a", "=", "c"))
    spool.close()
    (path,) = folder.glob("*.batch")
    whole = zlib.crc32(b"=").to_bytes(4, "little") + b"="
    broken = path.read_bytes().replace(whole, whole[:-1] + b"#")
    assert broken != path.read_bytes()
    path.write_bytes(broken)

    again = opened(folder)
    batch = again.head(seal_open=False)
    assert batch is not None
    contents = again.read(batch)
    kept = again.keep_corrupt(batch)

    assert not contents.is_intact
    assert [b"a"] == list(contents.events)
    assert broken == kept.read_bytes()
    assert [] == list(drained(again))
    assert len(broken) == again.size_bytes


def test_what_is_set_aside_can_be_read_and_counts(folder: Path) -> None:
    """It is NDJSON beside the batches, keeps its number, and takes part in the bound."""
    spool = opened(folder)
    spool.append(lines("a", "b", "c", "d"))
    batch = spool.head(seal_open=False)
    assert batch is not None
    path = spool.set_aside(batch, spool.read(batch).events)
    spool.close()

    again = opened(folder)
    again.append(lines("e"))

    assert b"a\nb\nc\n" == path.read_bytes()
    assert again.size_bytes > 6
    assert [["d"], ["e"]] == list(drained(again))
    assert 6 == again.size_bytes


def test_a_half_written_file_of_an_earlier_process_goes(folder: Path) -> None:
    """What was not moved into place is not kept."""
    opened(folder).close()
    half = folder / "0000000000000001.dead.tmp"
    half.write_bytes(CANARY)
    opened(folder).close()

    assert not half.exists()


def test_files_are_for_their_owner_alone(folder: Path) -> None:
    """The folder is 0700 also where it was there with more; every file is 0600."""
    folder.mkdir(mode=0o755)
    spool = opened(folder)
    spool.append(lines("a", "b", "c", "d"))
    batch = spool.head(seal_open=False)
    assert batch is not None
    spool.set_aside(batch, spool.read(batch).events)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == modes


def test_nothing_is_left_of_what_was_acknowledged(folder: Path) -> None:
    """After the removal no file holds the id."""
    spool = opened(folder)
    spool.append([(CANARY, 1)])
    assert 1 == sum(CANARY in path.read_bytes() for path in folder.iterdir())
    list(drained(spool))

    assert [] == [path for path in folder.iterdir() if CANARY in path.read_bytes()]


def test_two_on_one_folder(folder: Path) -> None:
    """The second is refused in words, and can open it once the first is closed."""
    first = opened(folder)

    with pytest.raises(SpoolUnavailableError, match="in use by another sender"):
        opened(folder)
    first.close()
    opened(folder).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A path through a file is refused as unavailable."""
    (tmp_path / "file").write_text("")

    with pytest.raises(SpoolUnavailableError, match="can be written"):
        opened(tmp_path / "file" / "spool")


def test_a_closed_spool_takes_nothing(folder: Path) -> None:
    """It says so, and closes twice."""
    spool = opened(folder)
    spool.close()
    spool.close()

    with pytest.raises(SpoolUnavailableError, match="closed"):
        spool.append(lines("a"))


def test_a_forked_process_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may neither append nor take the folder from its owner by closing."""
    spool = opened(folder)
    owner = os.getpid()
    monkeypatch.setattr(module.os, "getpid", lambda: owner + 1)

    with pytest.raises(SpoolUnavailableError, match="forked"):
        spool.append(lines("a"))
    spool.close()
    monkeypatch.undo()
    spool.append(lines("b"))

    assert [["b"]] == list(drained(spool))


def test_sync_reaches_each_batch_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open and sealed batches and the folder are synced, and nothing where nothing was written."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(module.os, "fsync", noted)
    spool = opened(folder)
    spool.append(lines("a", "b", "c", "d"))
    spool.append(lines("e", "f", "g"))
    next(drained(spool))
    spool.sync()
    spool.sync()

    assert ["0000000000000002.batch", "0000000000000003.batch", "spool"] == synced


def test_nothing_is_remembered_of_a_batch_that_left(folder: Path) -> None:
    """Also where no sync is ever needed, since the service is never away."""
    spool = opened(folder)
    spool.append(lines(*"abcdefghi"))
    first = spool.head(seal_open=True)
    assert first is not None
    spool.set_aside(first, spool.read(first).events)
    second = spool.head(seal_open=True)
    assert second is not None
    spool.keep_corrupt(second)
    list(drained(spool))

    assert not spool._unsynced


@pytest.mark.parametrize("failing", ["write", "open"])
def test_a_signal_in_the_middle_costs_no_event(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Where its handler raises, what comes in before and behind is whole."""
    real, turns = getattr(os, failing), count()

    def interrupted(*args: Any) -> Any:
        done = real(args[0], args[1][:5]) if failing == "write" else real(*args)
        if next(turns) == 0:
            raise KeyboardInterrupt
        return done

    spool = opened(folder)
    if failing == "write":
        spool.append(lines("a"))
    with monkeypatch.context() as patched:
        patched.setattr(module.os, failing, interrupted)
        with pytest.raises(KeyboardInterrupt):
            spool.append(lines("lost"))
    spool.append(lines("b"))

    assert ["b"] == [one for batch in drained(spool) for one in batch if one != "a"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_closed_spool_is_free_though_a_forked_process_lives(folder: Path) -> None:
    """The child has the descriptor of the lock too."""
    spool = opened(folder)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer)
            os.read(reader, 1)
        finally:
            os._exit(0)
    os.close(reader)
    try:
        spool.close()
        opened(folder).close()
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_done_is_what_has_left(folder: Path) -> None:
    """A number is done when no batch up to it is there."""
    spool = opened(folder)
    spool.append(lines("a", "b", "c", "d"))

    assert (2, False, False) == (spool.last_number, spool.is_done(1), spool.is_done(2))
    next(drained(spool))
    assert (True, False) == (spool.is_done(1), spool.is_done(2))
    next(drained(spool))
    assert spool.is_done(2)
