"""The page `docs/benchmarks.md`, made from the last line of `results.jsonl`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"
RESULTS: Final = Path(__file__).with_name("results.jsonl")
_ONE_SHOT: Final = (
    "An event file in, a whole month out, each program in a fresh process: 60 days of events,"
    " about 2 % of them `-`.",
    "DuckDB and polars count without any privacy, with one bit mask for each user: 30 DAU and 30"
    " MAU.",
    "OpenDP bounds the users itself and releases the same 60 numbers at (ε 3, δ 1e-6), for a user's"
    " whole history.",
    "`dpdau release --from` releases the 90 numbers of a calendar month, DAU, WAU and MAU, at the"
    " same ε and δ.",
    "In the SQL a `-` takes one `+` away; in dpdau the last event of a user and day decides.",
)


def render(results: Path = RESULTS) -> str:
    """The page."""
    line = json.loads(results.read_text("utf-8").splitlines()[-1])
    machine, versions, tasks = line["machine"], line["versions"], line["tasks"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [
        "# Benchmarks",
        "",
        "Made by `make bench` from `benchmarks/results.jsonl`; do not edit.",
        f"Measured on {line['at'][:10]} at commit `{line['commit']}`: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"{named}.",
        "Everything runs on that one machine, load generators too, and what is compared runs in"
        " turn.",
        "Times are the middle of the runs; in brackets the least and the largest.",
    ]
    for name, section in _SECTIONS.items():
        if name in tasks:
            parts += ["", *section(tasks[name])]
    return "\n".join(parts) + "\n"


def _one_shot(task: dict[str, Any]) -> Iterable[str]:
    yield from ("## A month from a file", "", *_ONE_SHOT, "")
    rows = []
    for size, found in task.items():
        for name, one in found["programs"].items():
            rows.append(
                [
                    f"{size}, {found['rows']:,} events, {found['users']:,} users",
                    name,
                    _seconds(one["wall_seconds"]),
                    f"{one['cpu_seconds']['median']:.2f}",
                    f"{one['peak_mb']['median']:,.0f}",
                ]
            )
    yield from _table(["workload", "program", "seconds", "CPU seconds", "peak MB"], rows)
    yield ""
    yield from _table(
        [
            "workload",
            "time ÷ SQL",
            "seconds over SQL",
            "memory ÷ SQL",
            "times faster than OpenDP",
            "RMSE (DAU and MAU)",
            "RMSE of OpenDP",
            "RMSE ÷ OpenDP",
        ],
        [
            [
                size,
                found["time_over_sql"],
                found["seconds_over_sql"],
                found["memory_over_sql"],
                found["times_faster_than_opendp"],
                found["rmse"]["dau and mau"],
                found["opendp_rmse"],
                found["rmse_over_opendp"],
            ]
            for size, found in task.items()
        ],
    )


def _bulk(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## Files into the store",
        "",
        "`dpdau ingest --from FILE` as a whole command, durable at its end.",
        "",
    )
    yield from _table(
        ["file", "seconds", "events/s", "CPU seconds", "peak MB"],
        [
            [
                name,
                _seconds(one["wall_seconds"]),
                f"{one['events_per_second']['median']:,.0f}",
                f"{one['cpu_seconds']['median']:.2f}",
                f"{one['peak_mb']['median']:,.0f}",
            ]
            for name, one in task.items()
        ],
    )


def _http(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## Events over HTTP",
        "",
        "Durable before the 202; one service process, keys and checks on, the load generator on the"
        " same cores.",
        "A stored release is read beside it.",
        "",
    )
    yield from _table(
        ["load", "events/s", "requests/s", "errors", "p50 ms", "p99 ms", "read p99 ms", "RSS MB"],
        [
            [
                name,
                f"{one['events_per_second']:,.0f}",
                f"{one['requests_per_second']:,.0f}",
                one["errors"],
                one["write_p50_ms"],
                one["write_p99_ms"],
                one["read_p99_ms"],
                one["rss_mb"],
            ]
            for name, one in task.items()
        ],
    )


def _step(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## A day of a month plan",
        "",
        "DAU, WAU and MAU of a day after its events are in: fixed, counted, noise added, recorded,"
        " durable.",
        "A fifth of the users is active on a day.",
        "",
    )
    yield from _table(
        ["users", "opening, seconds", "first day, seconds", "a day, seconds"],
        [
            [
                f"{one['users']:,}",
                one["open_seconds"],
                one["first_day_seconds"],
                _seconds(one["day_seconds"]),
            ]
            for one in task.values()
        ],
    )


def _counts(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## All exact counts of a month",
        "",
        "30 DAU and 30 rolling MAU, from the store, warm; beside them a bare numpy pass for each"
        " window over masks that lie joined in memory.",
        "",
    )
    yield from _table(
        [
            "users",
            "cold, seconds",
            "warm, seconds",
            "bare numpy, seconds",
            "ratio",
            "bytes a user and 64-day page",
        ],
        [
            [
                f"{one['users']:,}",
                one["cold_seconds"],
                _seconds(one["warm_seconds"]),
                _seconds(one["bare_numpy_seconds"]),
                one["ratio"],
                one["bytes_per_user_and_page"],
            ]
            for one in task.values()
        ],
    )


def _races(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## A race for the budget",
        "",
        f"{task['asked']:,} releases asked for by 32 threads against a cap of"
        f" ε {task['epsilon_cap']:g}: {task['bought']} were bought, ε {task['epsilon_spent']:g} was"
        f" spent, in {task['seconds']} s.",
    )


def _idle(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## At rest",
        "",
        f"An idle service holds {task['rss_mb']} MB and uses {task['cpu_percent']} % of a core;"
        f" `dpdau --help` takes {_seconds(task['help_seconds'])} s.",
    )


_SECTIONS: Final = {
    "one-shot": _one_shot,
    "bulk": _bulk,
    "http": _http,
    "step": _step,
    "counts": _counts,
    "races": _races,
    "idle": _idle,
}


def _seconds(found: dict[str, float]) -> str:
    return f"{found['median']:.3g} ({found['min']:.3g}–{found['max']:.3g})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' for _ in head)}|"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
