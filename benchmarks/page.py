"""The pages `docs/benchmarks.md` and `docs/profile.md`, from the newest result of each task.

Of `docs/comparison.md` it writes the figures alone, between two marks.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
BENCHMARKS: Final = DOCS / "benchmarks.md"
PROFILE: Final = DOCS / "profile.md"
COMPARISON: Final = DOCS / "comparison.md"
RESULTS: Final = Path(__file__).with_name("results.jsonl")
_BEGIN: Final = "<!-- Made by `make bench`, down to the next mark; do not edit. -->"
_END: Final = "<!-- The end of what `make bench` makes. -->"
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


def pages(results: Path = RESULTS) -> dict[Path, str]:
    """Path → text of each page."""
    line = newest(results)
    return {
        BENCHMARKS: _benchmarks(line),
        PROFILE: _profile(line),
        COMPARISON: _comparison(line, COMPARISON.read_text("utf-8")),
    }


def newest(results: Path = RESULTS) -> dict[str, Any]:
    """The last run, with the tasks that it left out from the newest run that has them.

    `older` names those tasks: commit and day → names.
    """
    last, *before = [json.loads(line) for line in reversed(results.read_text("utf-8").splitlines())]
    tasks, older = dict(last["tasks"]), {}
    for run in before:
        taken = [name for name in run["tasks"] if name not in tasks]
        tasks |= {name: run["tasks"][name] for name in taken}
        if taken:
            older[run["commit"], run["at"][:10]] = taken
    return {**last, "tasks": tasks, "older": older}


def _head(title: str, line: dict[str, Any]) -> Iterable[str]:
    machine, versions = line["machine"], line["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield from (
        f"# {title}",
        "",
        "Made by `make bench` from `benchmarks/results.jsonl`; do not edit.",
        f"Measured on {line['at'][:10]} at commit `{line['commit']}`: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"{named}.",
        *(
            f"Of the run on {day} at commit `{commit}`: {', '.join(names)}."
            for (commit, day), names in line["older"].items()
        ),
    )


def _benchmarks(line: dict[str, Any]) -> str:
    parts = [
        *_head("Benchmarks", line),
        "Everything runs on that one machine, load generators too, and what is compared runs in"
        " turn.",
        "Times are the middle of the runs; in brackets the least and the largest.",
    ]
    for name, section in _SECTIONS.items():
        if name in line["tasks"]:
            parts += ["", *section(line["tasks"][name])]
    return "\n".join(parts) + "\n"


_LIMITS: Final = {
    "read and check": "unpacking the three columns, or splitting the text into lines",
    "keyed hash": "one keyed BLAKE2b for each distinct id of a chunk, in Python",
    "fold": "sorting the pseudonyms",
    "write and merge": "writing and syncing the bytes that stay",
}


def _profile(line: dict[str, Any]) -> str:
    tasks = line["tasks"]
    parts = [
        *_head("Where the time and the bytes go", line),
        "",
        "## From bytes to durable activity",
        "",
        "CPU nanoseconds an event, one stage at a time; beside them the least that a program has to"
        " do there, done with the bare library.",
        "In the product, a chunk is read while the one before is hashed and written, so on two"
        " cores the slower half decides.",
        "",
    ]
    if "stages" in tasks:
        parts += _table(
            ["file", "stage", "ns an event", "limit, ns", "the limit is"],
            [
                [name, stage, one["dpdau"], one["limit"], _LIMITS[stage]]
                for name, found in tasks["stages"].items()
                for stage, one in found["nanoseconds_an_event"].items()
            ],
        )
        parts += [
            "",
            "The keyed hash is paid once for each distinct id of a chunk of up to a million rows;"
            " each live key in a rotation's overlap costs it once more.",
        ]
    parts += ["", *_growth_of_users(tasks), "", *_growth_of_the_rest(tasks)]
    return "\n".join(parts) + "\n"


def _growth_of_users(tasks: dict[str, Any]) -> Iterable[str]:
    """Counts and steps by users, and a straight line from the two largest to 100 million."""
    yield from (
        "## With more users",
        "",
        "All exact counts of a month (30 DAU and 30 MAU), a day's step of a month plan, and the"
        " bytes of two pages of 64 days.",
        "The row of 100 million is projected, a straight line through the two largest sizes;"
        " nothing of that size was run.",
        "",
    )
    steps = {one["users"]: one for one in tasks.get("step", {}).values()}
    rows = [
        (
            one["users"],
            one["warm_seconds"]["median"],
            steps[one["users"]]["day_seconds"]["median"],
            one["rows"] * one["bytes_per_user_and_page"] / 1e6,
            one["peak_mb"],
        )
        for one in tasks.get("counts", {}).values()
        if one["users"] in steps
    ]
    shown = [[f"{row[0]:,}", *(f"{cell:,.3g}" for cell in row[1:])] for row in rows]
    if len(rows) > 1:
        (before, last), far = rows[-2:], 100_000_000
        line = [
            b + (far - last[0]) * (b - a) / (last[0] - before[0])
            for a, b in zip(before[1:], last[1:], strict=True)
        ]
        shown.append([f"{far:,} (projected)", *(f"{cell:,.3g}" for cell in line)])
    head = ["users", "counts, seconds", "step, seconds", "MB on the disk", "peak MB of counting"]
    yield from _table(head, shown)


def _growth_of_the_rest(tasks: dict[str, Any]) -> Iterable[str]:
    """Steps by segments, counts by days."""
    growth = tasks.get("growth")
    if growth is None:
        return
    yield from ("## With more segments and more days", "")
    yield from _table(
        ["users", "segments of the plan", "a day's step, seconds"],
        [
            [f"{one['users']:,}", one["segments"], _seconds(one["day_seconds"])]
            for one in growth["segments"]["by_segments"]
        ],
    )
    yield ""
    yield from _table(
        ["users", "days counted, of a year of activity", "seconds"],
        [
            [f"{growth['days']['users']:,}", one["days"], _seconds(one["warm_seconds"])]
            for one in growth["days"]["by_days"]
        ],
    )
    yield from (
        "",
        "A window touches one page of 64 days or two, so the cost of a day's numbers does not grow"
        " with history.",
    )


def _comparison(line: dict[str, Any], page: str) -> str:
    """The page with its figures made anew."""
    tasks = line["tasks"]
    parts = [_BEGIN, ""]
    if "one-shot" in tasks:
        parts += _table(
            [
                "events in the file",
                "time ÷ plain SQL",
                "memory ÷ plain SQL",
                "times faster than OpenDP",
                "error, RMSE in users",
                "error of OpenDP",
            ],
            [
                [
                    f"{one['rows']:,}",
                    one["time_over_sql"],
                    one["memory_over_sql"],
                    one["times_faster_than_opendp"],
                    one["rmse"]["dau and mau"],
                    one["opendp_rmse"],
                ]
                for one in tasks["one-shot"].values()
            ],
        )
        parts.append("")
    if "forgetting" in tasks:
        parts += [*_forgetful(tasks["forgetting"]), ""]
    before, _, rest = page.partition(_BEGIN)
    assert _END in rest, f"{COMPARISON.name} has the marks of its figures"
    return before + "\n".join(parts) + "\n" + rest[rest.index(_END) :]


def _forgetful(task: dict[str, Any]) -> Iterable[str]:
    return _table(
        ["activity", "MAU of the last day", "a new salt every day", "every calendar month"],
        [
            [name, f"{one['mau']:,}", f"× {one['daily_over_mau']}", f"× {one['monthly_over_mau']}"]
            for name, one in task.items()
        ],
    )


def _forgetting(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## Counters that forget",
        "",
        "What a counter whose salt is new every day, or every calendar month, gives as the users of"
        " 30 days, over how many there were: the mean over the days of a month, with no noise.",
        "",
        *_forgetful(task),
    )


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
        "The bare service decodes and hashes the same events and stores nothing: it is the speed of"
        " this machine.",
        "",
    )
    bare = task["bare"]
    yield from _table(
        [
            "load",
            "events/s",
            "÷ bare service",
            "requests/s",
            "errors",
            "p50 ms",
            "p99 ms",
            "read p99 ms",
            "RSS MB",
        ],
        [
            [
                name,
                f"{one['events_per_second']:,.0f}",
                f"{one['events_per_second'] / bare[name]['events_per_second']:.2f}",
                f"{one['requests_per_second']:,.0f}",
                one["errors"],
                one["write_p50_ms"],
                one["write_p99_ms"],
                one["read_p99_ms"],
                one["rss_mb"],
            ]
            for name, one in task.items()
            if name != "bare"
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


def _spark(task: dict[str, Any]) -> Iterable[str]:
    yield from (
        "## A month counted by Spark",
        "",
        "The 90 exact counts of a month from one Parquet file with a column of the order, in one"
        " session of Spark with two threads, warm: the query of `dpdau release --engine`, which"
        " also looks for rows with faults, and SQL that is written for these numbers alone.",
        "",
    )
    yield from _table(
        ["size", "program", "rows", "users", "wall, seconds", "CPU, seconds", "shuffled, MB"],
        [
            [
                size,
                name,
                f"{one['rows']:,}",
                f"{one['users']:,}",
                _seconds(program["wall_seconds"]),
                _seconds(program["cpu_seconds"]),
                program["shuffled_mb"],
            ]
            for size, one in task.items()
            for name, program in one["programs"].items()
        ],
    )
    yield ""
    for size, one in task.items():
        yield (
            f"{size}: {one['time_over_sql']} × the time of the SQL, {one['cpu_over_sql']} × its"
            f" CPU; {one['rows_per_core_second']:,} rows a second of one core."
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
    "spark": _spark,
    "forgetting": _forgetting,
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
