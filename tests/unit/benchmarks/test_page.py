"""The pages that the benchmark writes."""

import json
from pathlib import Path

import pytest

from benchmarks import page


def test_the_pages_are_those_of_the_last_run() -> None:
    """Each page equals what its recipe makes of the committed results."""
    for path, text in page.pages().items():
        assert text == path.read_text("utf-8")


def test_the_projection_is_a_straight_line(tmp_path: Path) -> None:
    """From one and ten million to a hundred million users."""
    line = json.loads(page.RESULTS.read_text("utf-8").splitlines()[-1])
    counted = {
        "warm_seconds": {"median": 0},
        "rows": 0,
        "bytes_per_user_and_page": 16,
        "peak_mb": 0,
    }
    stepped = {"day_seconds": {"median": 0.0, "min": 0.0, "max": 0.0}}
    stepped |= {"open_seconds": 0, "first_day_seconds": 0}
    line["tasks"] = {
        "counts": {
            size: {
                **counted,
                "users": users,
                "warm_seconds": {"median": users / 1e7, "min": 0, "max": 0},
                "cold_seconds": 0,
                "bare_numpy_seconds": {"median": 1, "min": 1, "max": 1},
                "ratio": 1,
            }
            for size, users in (("M", 1_000_000), ("L", 10_000_000))
        },
        "step": {
            size: {**stepped, "users": users}
            for size, users in (("M", 1_000_000), ("L", 10_000_000))
        },
    }
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps(line))

    assert "| 100,000,000 (projected) | 10 | 0 | 0 | 0 |" in page.pages(results)[page.PROFILE]


@pytest.mark.parametrize("task", ["one-shot", "bulk", "http", "step", "counts", "races", "idle"])
def test_the_committed_run_has_every_task(task: str) -> None:
    """The docs show a whole run."""
    line = json.loads(page.RESULTS.read_text("utf-8").splitlines()[-1])

    assert task in line["tasks"]
