"""Which files of a lake count, and that nobody takes a lake for a folder."""

import contextlib
from pathlib import Path

import pytest

from dpdau.activity.backup import copy_store
from dpdau.activity.doors import MANIFEST
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.lake_table import LakeFile
from dpdau.activity.manifest import Manifest
from dpdau.activity.residue import inspect
from dpdau.activity.sealing import Sealer
from dpdau.errors import InvalidSettingError
from stores import NOW

PLAIN = Sealer(None)


def file(name: str, seq: int, *, days: tuple[int, int] | None = (3, 9)) -> LakeFile:
    """A file of the truth."""
    first, last = days or (None, None)
    return LakeFile(name, "days", seq, -1, 5, 100, 0, 2, first, last)


def test_files_are_named_and_forgotten(tmp_path: Path) -> None:
    """What was named and not forgotten is listed, the oldest commit first."""
    Manifest.create(tmp_path / MANIFEST, PLAIN, lake="one")
    some = [file("c", 1), file("a", 2), file("b", 2, days=None)]
    manifest = Manifest(tmp_path / MANIFEST, PLAIN, read_only=False)
    with contextlib.closing(manifest), manifest.writing():
        manifest.lake.add([some[2], some[0], some[1], file("d", 3)])
        manifest.lake.drop([file("d", 3)])
        assert some == manifest.lake.files()
        assert {"a", "b", "c"} == manifest.lake.names()


def test_bounds_say_what_a_file_may_hold() -> None:
    """Groups and days outside the bounds are not in it; without days it may hold each."""
    one = file("a", 1)

    assert [True, True, False] == [
        one.has_groups(range(*some)) for some in ((0, 1), (2, 9), (3, 9))
    ]
    assert [True, True, False, False] == [
        one.has_days(range(*some)) for some in ((0, 4), (9, 10), (0, 3), (10, 99))
    ]
    assert file("b", 1, days=None).has_days(range(1))


def test_a_manifest_is_that_of_one_lake(tmp_path: Path) -> None:
    """Looked for in another lake, in none, or in one where it has none, it is refused."""
    for name, lake in (("in", "one"), ("out", None)):
        Manifest.create(tmp_path / name, PLAIN, lake=lake)
    for name, lake, word in (
        ("in", "two", "another lake"),
        ("in", None, "the lake"),
        ("out", "one", "its own folder"),
    ):
        manifest = Manifest(tmp_path / name, PLAIN, read_only=True)
        with contextlib.closing(manifest), pytest.raises(InvalidSettingError, match=word):
            manifest.lake.check(lake)


def test_nobody_takes_a_lake_for_a_folder(tmp_path: Path) -> None:
    """No store, backup or search is satisfied with the empty folder beside a manifest."""
    root = tmp_path / "activity"
    root.mkdir()
    Manifest.create(root / MANIFEST, PLAIN, lake="one")
    for call in (
        lambda: EmbeddedStore(root, clock=lambda: NOW),
        lambda: EmbeddedStore(root, clock=lambda: NOW, read_only=True),
        lambda: copy_store(root, tmp_path / "copy"),
        lambda: inspect(root, store_key=None, names=[7]),
    ):
        with pytest.raises(InvalidSettingError, match="lake"):
            call()
