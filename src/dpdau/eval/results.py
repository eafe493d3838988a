"""From outcomes to `results.json`, `results.csv` and `report.md`."""

import csv
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from dpdau import __version__
from dpdau.errors import NotFoundError, StoreCorruptError, StoreUnavailableError
from dpdau.eval.folders import make_private
from dpdau.eval.measures import measure, step_change

__all__ = ["CLAIM_EPSILON", "CLAIM_ERROR", "about", "read", "summarize", "write"]

CLAIM_EPSILON: Final = 1.0
CLAIM_ERROR: Final = 0.05
"""The claim under test: a median relative error below this, at a monthly ε of at most that."""
FORMAT: Final = 1
_KEYS: Final = ("data", "users", "removed", "pattern", "kind", "removal")
_PARTS: Final = ("method", "metric", "setting")
_PACKAGES: Final = ("numpy", "opendp", "pyarrow", "sqlalchemy")

Row = dict[str, Any]


def about(
    *, experiment_id: str, preset: str, seed: int, workers: int, seconds: float, command: str
) -> Row:
    """What a reader needs to run it again: the command, the versions, and the machine in words."""
    return {
        "format": FORMAT,
        "experiment_id": experiment_id,
        "preset": preset,
        "seed": seed,
        "workers": workers,
        "seconds": round(seconds, 1),
        "command": command,
        "versions": {
            "dpdau": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "machine": _machine(),
    }


def summarize(outcomes: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each configuration, method, metric and ε: all days of all seeds together.

    `*_low` and `*_high` are the least and the greatest of the seeds' own medians. `before` and
    `after` are means over the seeds: the values of the day before an adversarial removal and of the
    day of it. `claim` says whether the claim holds; None where more than its ε was spent.
    """
    pooled: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Row]]] = {}
    for outcome in outcomes:
        for one in outcome["estimates"]:
            key = (*(outcome[name] for name in _KEYS), *(one[name] for name in _PARTS))
            pooled.setdefault(key, []).append((outcome, one))
    return [
        {**dict(zip((*_KEYS, *_PARTS), key, strict=True)), **_summary(runs)}
        for key, runs in pooled.items()
    ]


def write(folder: Path, head: Row, outcomes: Sequence[Row], report: str) -> list[Path]:
    """Writes the three files and returns their paths.

    Raises:
        StoreUnavailableError: They cannot be written there.
    """
    names = ("results.json", "results.csv", "report.md")
    paths = [folder / name for name in names]
    body = {"about": head, "summary": summarize(outcomes), "outcomes": outcomes}
    try:
        make_private(folder, paths)
        paths[0].write_text(json.dumps(body, ensure_ascii=False) + "\n", "utf-8")
        with paths[1].open("w", encoding="utf-8", newline="") as sink:
            rows = list(_runs(outcomes))
            writer = csv.DictWriter(sink, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        paths[2].write_text(report, "utf-8")
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected a folder that can be written, found {folder}: {error.strerror}."
        ) from None
    return paths


def read(path: Path) -> Row:
    """The results that `write` left.

    Raises:
        NotFoundError: There is no such file.
        StoreCorruptError: It is not what `write` leaves.
    """
    try:
        body: Row = json.loads(path.read_text("utf-8"))
        found = body["about"]["format"]
    except OSError:
        raise NotFoundError(f"Expected results at {path}, found none; run `dpdau eval`.") from None
    except (ValueError, KeyError, TypeError):
        raise StoreCorruptError(f"Expected the results of an experiment at {path}.") from None
    if found != FORMAT:
        raise StoreCorruptError(f"Expected results of format {FORMAT} at {path}, found {found}.")
    return body


def _summary(runs: Sequence[tuple[Mapping[str, Any], Row]]) -> Row:
    """The measures of one configuration over its seeds."""
    exact = [outcome["exact"][one["metric"]] for outcome, one in runs]
    values = [one["values"] for _, one in runs]
    halves = [one["half_widths"] for _, one in runs]
    columns = (exact, values, halves)
    whole = measure(*(np.concatenate(column) for column in columns)).to_json()
    each = [measure(*run).to_json() for run in zip(*columns, strict=True)]
    for name in ("absolute_median", "relative_median", "inside_share", "root_mean_square"):
        whole[f"{name}_low"] = min(row[name] for row in each)
        whole[f"{name}_high"] = max(row[name] for row in each)
    first = runs[0][1]
    # What on-demand releases cost is what the product says; it is the same for every seed.
    epsilon = max(one["epsilon"] for _, one in runs)
    steps: Row = {"exact_before": None, "exact_after": None, "before": None, "after": None}
    if runs[0][0]["pattern"] == "adversarial":
        day = len(exact[0]) // 2
        for prefix, series in (("exact_", exact), ("", values)):
            pairs = [step_change(one, day) for one in series]
            steps[f"{prefix}before"] = fmean(pair[0] for pair in pairs)
            steps[f"{prefix}after"] = fmean(pair[1] for pair in pairs)
    holds = whole["relative_median"] < CLAIM_ERROR if epsilon <= CLAIM_EPSILON else None
    return {
        "epsilon": epsilon,
        "delta": first["delta"],
        "numbers": first["numbers"],
        "seeds": len(runs),
        **whole,
        **steps,
        "claim": holds,
    }


def _runs(outcomes: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    """One flat row for each seed, method, metric and ε."""
    for outcome in outcomes:
        for one in outcome["estimates"]:
            found = measure(outcome["exact"][one["metric"]], one["values"], one["half_widths"])
            yield {
                **{name: outcome[name] for name in (*_KEYS, "seed", "level")},
                **{name: one[name] for name in (*_PARTS, "epsilon", "delta", "numbers")},
                **found.to_json(),
                **outcome["timing"],
            }


def _machine() -> str:
    """The machine in words: processors, memory, architecture, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GiB of memory, "
        f"{platform.system()}, {sys.implementation.name}"
    )
