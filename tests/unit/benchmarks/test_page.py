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
    """The docs show every task."""
    assert task in page.newest()["tasks"]


def test_a_task_that_was_left_out_is_of_an_older_run(tmp_path: Path) -> None:
    """The newest result of each task counts, and the page says which run an older one is of."""
    runs = [
        {"at": f"2026-03-0{day}T00:00:00", "commit": f"c{day}", "tasks": tasks}
        for day, tasks in enumerate([{"a": 1, "b": 1}, {"a": 2}, {"c": 3}], start=1)
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(run) + "\n" for run in runs))
    found = page.newest(results)

    assert {"a": 2, "b": 1, "c": 3} == found["tasks"]
    assert {("c2", "2026-03-02"): ["a"], ("c1", "2026-03-01"): ["b"]} == found["older"]
    assert "c3" == found["commit"]
