"""Shipped strategies: every certificate holds, the figures are reached, and files are checked."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import dpdau.mechanisms.matrix.strategies as strategies
from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError, NotFoundError, StoreCorruptError
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.covariance import Measure
from dpdau.mechanisms.matrix.strategies import (
    CertifiedStrategy,
    StrategyKey,
    build,
    load,
    obtain,
    save,
    shipped,
    shipped_keys,
    verify,
)

SMALL = StrategyKey(ContributionClass(6, (2, 4), daily=True), (1.0, 1.0, 1.0))
DATA = Path(str(files("dpdau.mechanisms.matrix") / "data"))


@pytest.fixture(scope="module")
def small() -> CertifiedStrategy:
    """A strategy that is solved in a moment."""
    return build(SMALL, sharpen_iterations=50)


@pytest.mark.parametrize("key", shipped_keys(), ids=lambda key: key.name)
def test_shipped_certificates_hold(key: StrategyKey) -> None:
    """Class, integer sensitivity, error and lower bound come out again as they are stated."""
    certified = load(DATA, key)
    verify(certified)
    assert 0 < certified.gap < 0.0095


def test_shipped_files_are_the_listed_ones_and_small() -> None:
    """Two files for each key, below 300 kB each and 3 MB in all."""
    names = {f"{key.name}{suffix}" for key in shipped_keys() for suffix in (".npz", ".json")}
    sizes = {path.name: path.stat().st_size for path in DATA.iterdir()}
    assert names == set(sizes)
    assert max(sizes.values()) < 300_000 and sum(sizes.values()) < 3_000_000


@pytest.mark.parametrize(
    ("horizon", "window", "error", "stddevs"),
    [
        (31, 30, 6.63, {Metric.DAU: 4.06, Metric.WAU: 3.86, Metric.MAU: 3.56}),
        (30, 30, 6.55, {Metric.DAU: 4.01, Metric.WAU: 3.81, Metric.MAU: 3.53}),
        (29, 30, 6.48, {Metric.DAU: 3.95, Metric.WAU: 3.76, Metric.MAU: 3.49}),
        (28, 30, 6.39, {Metric.DAU: 3.90, Metric.WAU: 3.71, Metric.MAU: 3.46}),
        (31, 28, 6.64, {Metric.DAU: 4.06, Metric.WAU: 3.86, Metric.MAU: 3.56}),
    ],
)
def test_figures_of_a_month_are_reached(
    horizon: int, window: int, error: float, stddevs: dict[Metric, float]
) -> None:
    """Errors at ρ = ½, joint and for each metric, are no larger than these."""
    certified = shipped(horizon, window)
    variance = np.square(certified.strategy.normalized_stddev()).mean(axis=0)
    found = dict(zip(certified.strategy.metrics, np.sqrt(variance), strict=True))
    assert certified.error <= error
    assert {} == {metric: found[metric] for metric in found if found[metric] > stddevs[metric]}


def test_files_give_back_what_was_saved(small: CertifiedStrategy, tmp_path: Path) -> None:
    """A round trip changes nothing, and what comes back verifies."""
    save(small, tmp_path)
    found = load(tmp_path, SMALL)
    verify(found)
    assert np.array_equal(small.strategy.matrix, found.strategy.matrix)
    assert np.array_equal(small.witness.rows(), found.witness.rows())
    assert np.array_equal(small.witness.mass, found.witness.mass)
    for name in ("key", "class_size", "class_sha256", "error", "lower_bound", "generator"):
        assert getattr(small, name) == getattr(found, name)
    assert small.strategy.sensitivity_squared == found.strategy.sensitivity_squared
    assert {f"{SMALL.name}.npz", f"{SMALL.name}.json"} == {path.name for path in tmp_path.iterdir()}


def test_claims_that_do_not_hold_are_found(small: CertifiedStrategy) -> None:
    """Each part of a certificate that is off makes the check fail by name."""
    less = replace(small.strategy, sensitivity_squared=small.strategy.sensitivity_squared - 1)
    smaller = small.strategy.matrix.copy()
    smaller[3, 0] += 100
    mass = small.witness.mass
    impossible = Measure(1 - small.witness.series, small.witness.activity, mass)
    idle = Measure(small.witness.series, np.zeros_like(small.witness.activity), mass)
    for change, name in [
        ({"strategy": less}, "sensitivity"),
        ({"strategy": replace(small.strategy, matrix=smaller)}, "sensitivity"),
        ({"class_size": small.class_size - 1}, "class"),
        ({"class_sha256": "0" * 64}, "class"),
        ({"error": small.error * 0.999}, "error"),
        ({"lower_bound": small.lower_bound * 1.001}, "bound"),
        ({"witness": impossible}, "witness"),
        ({"witness": idle}, "witness"),
    ]:
        with pytest.raises(StoreCorruptError, match=name):
            verify(replace(small, **change))


def test_files_that_were_touched_are_refused(small: CertifiedStrategy, tmp_path: Path) -> None:
    """A flipped byte, another format, another key, half a file: refused."""
    save(small, tmp_path)
    certificate, integers = tmp_path / f"{SMALL.name}.json", tmp_path / f"{SMALL.name}.npz"
    text, content = certificate.read_text("utf-8"), integers.read_bytes()
    body = json.loads(text)
    for changed in (
        "{", "[]", json.dumps({**body, "format": 99}), json.dumps({**body, "erasure": False}),
        json.dumps({**body, "integers_sha256": "0" * 64}), json.dumps({**body, "releases": 3}),
        json.dumps({key: body[key] for key in body if key != "class_size"}),
        json.dumps({**body, "sensitivity_squared": 0}),
    ):  # fmt: skip
        certificate.write_text(changed, "utf-8")
        with pytest.raises(StoreCorruptError):
            load(tmp_path, SMALL)
    certificate.write_text(text, "utf-8")
    integers.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreCorruptError):
        load(tmp_path, SMALL)
    integers.unlink()
    with pytest.raises(NotFoundError):
        load(tmp_path, SMALL)


def test_strategies_are_solved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not shipped is solved with progress, cached, and verified when it comes back."""
    key = StrategyKey(ContributionClass(5, (3,)), (1.0,))
    heard: list[tuple[int, float, float]] = []
    made = obtain(key, tmp_path / "new", progress=lambda *seen: heard.append(seen))
    assert heard
    monkeypatch.setattr(strategies, "build", None)
    again = obtain(key, tmp_path / "new")
    assert np.array_equal(made.strategy.matrix, again.strategy.matrix)
    assert (Metric.MAU,) == again.strategy.metrics


def test_a_cached_strategy_that_claims_too_little_is_refused(
    small: CertifiedStrategy, tmp_path: Path
) -> None:
    """A cache is no place of trust: a consistent file with a smaller sensitivity is refused."""
    less = replace(small.strategy, sensitivity_squared=small.strategy.sensitivity_squared // 2)
    save(replace(small, strategy=less), tmp_path)
    with pytest.raises(StoreCorruptError, match="sensitivity"):
        obtain(SMALL, tmp_path)


def test_shipped_strategies_need_no_cache(tmp_path: Path) -> None:
    """A shipped key is served from the package, whatever lies in the cache."""
    key = shipped_keys()[0]
    shutil.copy(DATA / f"{key.name}.json", tmp_path)
    assert obtain(key, tmp_path).error == load(DATA, key).error
    with pytest.raises(NotFoundError):
        shipped(27, 30)


def test_names_and_metrics_of_keys() -> None:
    """The stem tells the key; windows are named from the shortest."""
    joint = StrategyKey(ContributionClass(31, (7, 30), daily=True), (1.0, 0.5, 2.0))
    week = StrategyKey(ContributionClass(31, (7,), erasure=False), (1.0,))
    pair = StrategyKey(ContributionClass(30, (30,), daily=True), (1.0, 1.0))
    assert "t31-w7-30-daily-erasure-1x0.5x2" == joint.name
    assert ("t31-w7-1", (Metric.WAU,)) == (week.name, week.metrics)
    assert (Metric.MAU, Metric.DAU) == pair.metrics
    assert (Metric.WAU, Metric.MAU, Metric.DAU) == joint.metrics
    with pytest.raises(InvalidPlanError):
        assert StrategyKey(ContributionClass(9, (2, 3, 4)), (1.0,) * 3).metrics


def test_the_shipped_set_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry point solves each key into the directory, and says how far it is and how good."""
    monkeypatch.setattr(strategies, "shipped_keys", lambda: (SMALL,))
    strategies.main([str(tmp_path)])
    assert load(tmp_path, SMALL).class_size == len(SMALL.contribution.series())
    told = capsys.readouterr().err
    assert f"{SMALL.name}: 25 updates" in told and "gap" in told
