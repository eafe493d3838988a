"""One small run of the experiment through the command line, and hand-made outcomes."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpdau.cli.root import run


@pytest.fixture(scope="session")
def quick_run() -> Iterator[Path]:
    """The folder in which `dpdau eval --quick` and `dpdau plots` were run once."""
    with tempfile.TemporaryDirectory() as root:
        where = ["--out", root, "--experiment-id", "trial"]
        assert 0 == run(["eval", "--quick", "--workers", "1", "--seed", "5", *where])
        assert 0 == run(["plots", *where])
        yield Path(root)


@pytest.fixture
def quick_results(quick_run: Path) -> Any:
    """The results of that run."""
    return json.loads((quick_run / "experiments" / "trial" / "results.json").read_text("utf-8"))


@pytest.fixture
def outcome() -> Callable[..., dict[str, Any]]:
    """Makes the outcome of one task: exact counts of 100, and one estimate of given errors."""

    def made(errors: list[int], **changes: Any) -> dict[str, Any]:
        metric = changes.pop("metric", "dau")
        estimate = {
            "method": "plan",
            "metric": metric,
            "setting": 0.5,
            "epsilon": 0.5,
            "delta": 1e-6,
            "numbers": 3 * len(errors),
            "values": [100 + error for error in errors],
            "half_widths": [10] * len(errors),
            **changes.pop("estimate", {}),
        }
        return {
            "data": "synthetic",
            "users": 1_000,
            "removed": 0.0,
            "pattern": "none",
            "kind": "none",
            "removal": "none",
            "seed": 1,
            "level": "0.5",
            "exact": {metric: [100] * len(errors)},
            "ignored": None,
            "timing": {
                "events": 10,
                "events_per_second": 5.0,
                "plan_open_ms": 4.0,
                "plan_step_ms": 3.0,
                "plan_read_ms": 2.0,
                "on_demand_ms": 1.0,
                "erase_ms": None,
            },
            "estimates": [estimate],
            **changes,
        }

    return made
