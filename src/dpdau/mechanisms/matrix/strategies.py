"""Strategies with their certificates: those that ship with the product, and how others are made.

A strategy lies in two files: `<name>.npz` with the integers, and `<name>.json`, the certificate:
what it is for, what it costs, and what no mechanism can beat. Nothing in it is taken on trust:
`verify` lists the class again, takes its sensitivity in integers, and computes both errors again.

To make the shipped files anew: `python -m dpdau.mechanisms.matrix.strategies DIRECTORY`.
"""

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import WAU_WINDOW_DAYS, Metric
from dpdau.errors import InvalidPlanError, NotFoundError, StoreCorruptError
from dpdau.mechanisms.matrix.classes import ContributionClass, Series
from dpdau.mechanisms.matrix.covariance import Measure, Progress, general_bound, sharpen, solve
from dpdau.mechanisms.matrix.lattice import (
    LATTICE_BITS,
    LatticeStrategy,
    lattice_strategy,
    sensitivity_squared,
)

FORMAT: Final = 1
SHIPPED_HORIZONS: Final = (28, 29, 30, 31)
SHIPPED_MAU_WINDOWS: Final = (28, 30)
SHIPPED_WEIGHTS: Final = (1.0, 1.0, 1.0)
SHARPEN_ITERATIONS: Final = 250
_MASS_UNITS: Final = 1_000_000_000
_WITNESS_ROWS_MAX: Final = 6_000
_ERROR_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class StrategyKey:
    """What a strategy is for.

    Args:
        contribution: What one user can do.
        weights: Weight of the error of each window from the shortest to the longest, then of the
            daily count.
    """

    contribution: ContributionClass
    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        """The stem of its files.

        Example:
            >>> StrategyKey(ContributionClass(31, (7, 30), daily=True), (1.0, 1.0, 0.5)).name
            't31-w7-30-daily-erasure-1x1x0.5'
        """
        part = self.contribution
        days = "-".join(map(str, part.windows))
        daily, erasure = "-daily" * part.daily, "-erasure" * part.erasure
        return f"t{part.horizon}-w{days}{daily}{erasure}-{'x'.join(f'{w:g}' for w in self.weights)}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is released each day: windows from the shortest, then the day.

        Raises:
            InvalidPlanError: There are more windows than names for them.
        """
        windows = self.contribution.windows
        if windows == (WAU_WINDOW_DAYS,):
            names: tuple[Metric, ...] = (Metric.WAU,)
        elif len(windows) <= 2:
            names = (Metric.WAU, Metric.MAU)[-len(windows) :]
        else:
            raise InvalidPlanError(f"Expected one or two windows, found {windows}.")
        return (*names, Metric.DAU) if self.contribution.daily else names


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedStrategy:
    """A strategy, what it is for, and the two errors around it.

    Shapes and units: `error` and `lower_bound` are roots of the weighted sum, over the metrics, of
    the mean variance per day, in users at ρ = ½. No unbiased Gaussian mechanism of any covariance
    is below `lower_bound`; `witness` is the measure that proves it.
    """

    key: StrategyKey
    strategy: LatticeStrategy
    witness: Measure
    class_size: int
    class_sha256: str
    error: float
    lower_bound: float
    generator: str

    @property
    def gap(self) -> float:
        """By how much the error may exceed the best there can be, as a fraction."""
        return self.error / self.lower_bound - 1


def shipped_keys() -> tuple[StrategyKey, ...]:
    """What the shipped strategies are for: calendar months, joint DAU, WAU and MAU, erasure."""
    return tuple(
        month_key(days, window) for window in SHIPPED_MAU_WINDOWS for days in SHIPPED_HORIZONS
    )


def month_key(days: int, mau_window: int) -> StrategyKey:
    """What a month plan needs: joint DAU, WAU and MAU, equal weights, erasure.

    Raises:
        InvalidPlanError: The MAU window is not longer than a week.
    """
    windows = (WAU_WINDOW_DAYS, mau_window)
    return StrategyKey(ContributionClass(days, windows, daily=True), SHIPPED_WEIGHTS)


def is_solved(key: StrategyKey, cache: Path) -> bool:
    """Whether `obtain` has the strategy without solving."""
    return key in shipped_keys() or (cache / f"{key.name}.json").exists()


def shipped(horizon: int, mau_window: int) -> CertifiedStrategy:
    """The shipped strategy for a month of `horizon` days.

    Raises:
        NotFoundError: None is shipped for these days.
        StoreCorruptError: The files do not match their hashes.
    """
    for key in shipped_keys():
        if (key.contribution.horizon, key.contribution.windows[1]) == (horizon, mau_window):
            return load(files("dpdau.mechanisms.matrix") / "data", key)
    raise NotFoundError(
        f"Expected a horizon of {SHIPPED_HORIZONS} and a window of {SHIPPED_MAU_WINDOWS},"
        f" found {horizon} and {mau_window}."
    )


def obtain(key: StrategyKey, cache: Path, *, progress: Progress | None = None) -> CertifiedStrategy:
    """The strategy for a key: shipped, or from `cache`, or solved and put there.

    Solving takes seconds to minutes; `progress` hears of it. A strategy from the cache is verified
    again before it is used, because its sensitivity is what the guarantee rests on.

    Raises:
        InvalidPlanError: The key is out of range, or its class too large to list.
        StoreCorruptError: A file in the cache does not verify.
    """
    if key in shipped_keys():
        return load(files("dpdau.mechanisms.matrix") / "data", key)
    if is_solved(key, cache):
        found = load(cache, key)
        verify(found)
        return found
    made = build(key, progress=progress)
    save(made, cache)
    return made


def build(
    key: StrategyKey,
    *,
    sharpen_iterations: int = SHARPEN_ITERATIONS,
    progress: Progress | None = None,
) -> CertifiedStrategy:
    """Solves, rounds and certifies.

    Raises:
        InvalidPlanError: The key is out of range, or its class too large to list.
    """
    part = key.contribution
    metrics = key.metrics
    solution = solve(part, key.weights, progress=progress)
    strategy = lattice_strategy(solution.form, part, metrics)
    measure = sharpen(
        solution.measure, part, key.weights, iterations=sharpen_iterations, progress=progress
    )
    witness = _from_units(*_to_units(measure), daily=part.horizon * part.daily)
    size, digest = _class_facts(part.series())
    return CertifiedStrategy(
        key=key,
        strategy=strategy,
        witness=witness,
        class_size=size,
        class_sha256=digest,
        error=_error(strategy, key.weights),
        lower_bound=general_bound(witness, key.weights),
        generator=_generator(),
    )


def verify(certified: CertifiedStrategy) -> None:
    """Computes everything again that the certificate says.

    Guarantee: after it, Δ² bounds |Āv|² over the whole class, in integers; the error is what it
    says; and the witness, which holds only contributions that users can make, proves the bound.

    Raises:
        StoreCorruptError: Something differs.
    """
    part, strategy = certified.key.contribution, certified.strategy
    witness = certified.witness
    series = part.series()
    members, activity = witness.series.astype(np.uint8), witness.activity.astype(np.uint8)
    possible = _is_member(members, series)
    if part.daily:
        possible &= bool(part.possible(members, activity).all())
    bound = general_bound(witness, certified.key.weights)
    facts = {
        "class": _class_facts(series) == (certified.class_size, certified.class_sha256),
        "sensitivity": strategy.sensitivity_squared
        == sensitivity_squared(strategy.matrix, part, series=series),
        "error": _same(_error(strategy, certified.key.weights), certified.error),
        "witness": possible,
        "bound": _same(bound, certified.lower_bound),
    }
    wrong = [name for name, holds in facts.items() if not holds]
    if wrong:
        raise StoreCorruptError(f"Expected {certified.key.name} to verify, found wrong: {wrong}.")


def save(certified: CertifiedStrategy, directory: Path) -> None:
    """Writes the two files, the certificate last, each whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    strategy = certified.strategy
    bits, mass = _to_units(certified.witness)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        lower=strategy.matrix[np.tril_indices(len(strategy.matrix))],
        witness=np.packbits(bits, axis=1),
        mass=mass,
    )
    integers = buffer.getvalue()
    body = {
        "format": FORMAT,
        "generator": certified.generator,
        **_describe(certified.key),
        "lattice_bits": LATTICE_BITS,
        "releases": len(strategy.matrix),
        "sensitivity_squared": strategy.sensitivity_squared,
        "class_size": certified.class_size,
        "class_sha256": certified.class_sha256,
        "error": certified.error,
        "lower_bound": certified.lower_bound,
        "gap": round(certified.gap, _ERROR_DIGITS),
        "integers_sha256": hashlib.sha256(integers).hexdigest(),
    }
    text = json.dumps(body, indent=1) + "\n"
    for suffix, content in ((".npz", integers), (".json", text.encode())):
        draft = directory / f"{certified.key.name}{suffix}.draft"
        draft.write_bytes(content)
        draft.replace(directory / f"{certified.key.name}{suffix}")


def load(directory: Traversable | Path, key: StrategyKey) -> CertifiedStrategy:
    """Reads the two files back, and checks the hash.

    Raises:
        NotFoundError: They are not there.
        StoreCorruptError: They do not fit each other, or are of another format or for another key.
    """
    try:
        body = json.loads((directory / f"{key.name}.json").read_text("utf-8"))
        integers = (directory / f"{key.name}.npz").read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"Expected the strategy {key.name}, found none.") from error
    except ValueError as error:
        raise StoreCorruptError(f"Expected a certificate of {key.name}, found {error}.") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise StoreCorruptError(f"Expected a certificate of {key.name} of format {FORMAT}.")
    if hashlib.sha256(integers).hexdigest() != body.get("integers_sha256"):
        raise StoreCorruptError(f"Expected the integers of {key.name}, found others.")
    if {name: body.get(name) for name in _describe(key)} != _describe(key):
        raise StoreCorruptError(f"Expected a certificate of {key.name}, found another.")
    try:
        return _assemble(key, body, integers)
    except (KeyError, TypeError, ValueError, BadZipFile, InvalidPlanError) as error:
        raise StoreCorruptError(f"Expected a whole certificate of {key.name}.") from error


def _assemble(key: StrategyKey, body: dict[str, Any], integers: bytes) -> CertifiedStrategy:
    """The parts of the two files, put together."""
    size = int(body["releases"])
    with np.load(io.BytesIO(integers), allow_pickle=False) as arrays:
        matrix = np.zeros((size, size), dtype=np.int64)
        matrix[np.tril_indices(size)] = arrays["lower"]
        bits = np.unpackbits(arrays["witness"], axis=1, count=size)
        mass = arrays["mass"]
    strategy = LatticeStrategy(
        horizon=key.contribution.horizon,
        metrics=key.metrics,
        matrix=matrix,
        sensitivity_squared=int(body["sensitivity_squared"]),
    )
    return CertifiedStrategy(
        key=key,
        strategy=strategy,
        witness=_from_units(bits, mass, daily=key.contribution.horizon * key.contribution.daily),
        class_size=int(body["class_size"]),
        class_sha256=str(body["class_sha256"]),
        error=float(body["error"]),
        lower_bound=float(body["lower_bound"]),
        generator=str(body["generator"]),
    )


def _describe(key: StrategyKey) -> dict[str, Any]:
    """The key, as JSON has it."""
    return {
        "horizon": key.contribution.horizon,
        "windows": list(key.contribution.windows),
        "daily": key.contribution.daily,
        "erasure": key.contribution.erasure,
        "weights": list(key.weights),
        "metrics": [metric.value for metric in key.metrics],
    }


def _class_facts(series: Series) -> tuple[int, str]:
    """How many series a class has, and the hash of them all in order."""
    return len(series), hashlib.sha256(np.packbits(series, axis=1).tobytes()).hexdigest()


def _is_member(members: Series, series: Series) -> bool:
    """Whether every row is a series of the class."""
    packed = np.packbits(series, axis=1)
    rows = np.packbits(members, axis=1)
    one = np.dtype((np.void, packed.shape[1]))
    return bool(np.isin(rows.view(one).ravel(), packed.view(one).ravel()).all())


def _error(strategy: LatticeStrategy, weights: tuple[float, ...]) -> float:
    """The weighted error of a strategy at ρ = ½."""
    variance = np.square(strategy.normalized_stddev()).mean(axis=0)
    return float(np.sqrt(variance @ np.square(np.array(weights))))


def _same(found: float, stated: float) -> bool:
    """Equal but for the rounding of another machine."""
    return abs(found - stated) <= 1e-9 * stated


def _to_units(measure: Measure) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """The heaviest rows of a measure as bits, and their mass in integer units."""
    chosen = np.sort(np.argsort(-measure.mass, kind="stable")[:_WITNESS_ROWS_MAX])
    units = np.rint(measure.mass[chosen] / measure.mass[chosen].sum() * _MASS_UNITS)
    kept = units > 0
    rows = measure.rows()[chosen][kept]
    return rows.astype(np.uint8), units[kept].astype(np.uint32)


def _from_units(bits: NDArray[np.uint8], units: NDArray[np.uint32], *, daily: int) -> Measure:
    """The inverse of `_to_units`; the last `daily` columns are activity."""
    rows, mass = bits.astype(np.float64), units.astype(np.float64)
    width = rows.shape[1] - daily
    return Measure(rows[:, :width], rows[:, width:], mass / mass.sum())


def _generator() -> str:
    """The version that made a strategy."""
    from dpdau import __version__

    return f"dpdau {__version__}"


def main(arguments: Sequence[str]) -> None:
    """Solves every shipped strategy into a directory, and says how far it is."""
    directory = Path(arguments[0])
    for key in shipped_keys():

        def tell(iteration: int, error: float, bound: float, name: str = key.name) -> None:
            sys.stderr.write(f"\r{name}: {iteration} updates, {error:.4f}, bound {bound:.4f} ")
            sys.stderr.flush()

        certified = build(key, progress=tell)
        save(certified, directory)
        sys.stderr.write(
            f"\r{key.name}: error {certified.error:.4f}, bound {certified.lower_bound:.4f},"
            f" gap {certified.gap:.2%}\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
