"""Copies of a store that is written meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpdau.activity import backup
from dpdau.activity.backup import copy_store, make_writable
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.residue import inspect
from dpdau.domain import Event, Op
from dpdau.errors import StoreCorruptError, StoreUnavailableError
from stores import KEY, NOW, TINY
from strategies import batch

Open = Callable[..., EmbeddedStore]
GOLDEN = 0x9E3779B97F4A7C15


def fill(store: EmbeddedStore, first: int, last: int) -> None:
    """One user a batch, so that files are folded and merged on the way."""
    for number in range(first, last):
        store.apply(batch([Event(number * GOLDEN % 2**64, Op.ADD, number % 3)]))


@pytest.mark.parametrize("key", [None, KEY])
def test_a_copy_is_a_store_of_its_own(open_store: Open, tmp_path: Path, key: bytes | None) -> None:
    """It counts the same, is sound, has no file beside it, and can be written again."""
    store = open_store(store_key=key)
    fill(store, 1, 20)
    expected = store.stats().rows
    copy_store(tmp_path / "activity", tmp_path / "copy")
    fill(store, 20, 30)

    assert [] == inspect(tmp_path / "copy", store_key=key).problems
    assert {"manifest.sqlite", "segments", "store.made"} == {
        one.name for one in (tmp_path / "copy").iterdir()
    }
    make_writable(tmp_path / "copy")
    again = EmbeddedStore(tmp_path / "copy", store_key=key, clock=lambda: NOW, limits=TINY)
    assert expected == again.stats().rows
    fill(again, 40, 50)
    assert [] == inspect(tmp_path / "copy", store_key=key).problems
    again.close()


def test_a_merge_in_between_is_no_harm(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a writer replaces files while they are copied, a newer whole state is the copy."""
    store, copied = open_store(), backup.shutil.copyfile
    fill(store, 1, 20)
    calls = []

    def slow(source: Path, target: Path) -> Any:
        calls.append(source)
        if len(calls) in {2, 5}:
            fill(store, 20 * len(calls), 20 * len(calls) + 12)
            store.forget([3 * GOLDEN % 2**64])
        return copied(source, target)

    states = []

    def state(*paths: Path) -> dict[str, int]:
        states.append(manifest_copied(*paths))
        return states[-1]

    manifest_copied = backup._copy_manifest
    monkeypatch.setattr(backup, "_copy_manifest", state)
    monkeypatch.setattr(backup.shutil, "copyfile", slow)
    copy_store(tmp_path / "activity", tmp_path / "copy")
    findings = inspect(tmp_path / "copy", store_key=None, names=[3 * GOLDEN % 2**64])

    assert len(states) > 1
    assert states[0] != states[-1]
    assert ([], []) == (findings.problems, findings.rows_found)


def test_a_file_that_is_gone_for_good_is_corruption(open_store: Open, tmp_path: Path) -> None:
    """A lost file is not taken for one that a merge took away."""
    fill(open_store(), 1, 12)
    next((tmp_path / "activity" / "segments").glob("*.seg")).unlink()
    with pytest.raises(StoreCorruptError):
        copy_store(tmp_path / "activity", tmp_path / "copy")
    with pytest.raises(StoreUnavailableError):
        copy_store(tmp_path / "nowhere", tmp_path / "other")
