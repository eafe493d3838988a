"""Codes of dimensions and values."""

from pathlib import Path

import numpy as np
import pytest

from dpdau.activity.dictionary import NewLabels, label_run
from dpdau.activity.manifest import Manifest
from dpdau.activity.runs import row_count
from dpdau.activity.sealing import Sealer
from dpdau.domain import Event, Op
from strategies import batch


@pytest.fixture
def manifest(tmp_path: Path):
    """An empty manifest, open for writing."""
    Manifest.create(tmp_path / "manifest.sqlite", Sealer(None))
    manifest = Manifest(tmp_path / "manifest.sqlite", Sealer(None), read_only=False)
    yield manifest
    manifest.close()


def put(who: int, value: str, op: Op = Op.ADD) -> tuple[Event, dict[str, str]]:
    """An event with a platform."""
    return Event(who, op, 20_000), {"platform": value}


def test_codes_do_not_depend_on_the_batch(manifest: Manifest) -> None:
    """A value keeps its code over batches that list their values in another order."""
    codes = []
    for stream in ([put(1, "web")], [put(2, "android"), put(3, "web")]):
        new_labels = NewLabels(manifest)
        columns = batch(stream)
        run = label_run(columns, np.ones(columns.events, dtype=np.bool_), new_labels)
        with manifest.writing():
            new_labels.store()
        codes.append([rows.values[0].tolist() for rows in run.values()])

    assert [[[0]], [[1, 0]]] == codes
    platform = manifest.dimensions()["platform"]
    assert ["android", "web"] == manifest.values(platform)
    assert [0, 1, None] == [
        manifest.value_code(platform, value) for value in ("web", "android", "ios")
    ]


def test_a_value_listed_twice_has_one_code(manifest: Manifest) -> None:
    """A batch may repeat a value in its list."""
    new_labels = NewLabels(manifest)
    dimension = new_labels.dimension("platform")
    codes = new_labels.codes(dimension, {0: "web", 2: "ios", 3: "web"}, 4)
    with manifest.writing():
        new_labels.store()

    assert [0, -1, 1, 0] == codes.tolist()


def test_values_nobody_kept_are_not_stored(manifest: Manifest) -> None:
    """Skipped rows and `-` rows bring neither labels nor values."""
    columns = batch([put(1, "web"), put(2, "ios", Op.REMOVE)])
    new_labels = NewLabels(manifest)
    run = label_run(columns, np.array([False, True]), new_labels)
    with manifest.writing():
        new_labels.store()

    assert 0 == row_count(run)
    assert {} == manifest.dimensions()
