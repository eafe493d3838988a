"""The results in Markdown: what was claimed, what came out, and the command that does it again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from dpdau.eval.measures import Share
from dpdau.eval.methods import TITLES, Method
from dpdau.eval.results import CLAIM_EPSILON, CLAIM_ERROR, summarize

__all__ = ["markdown", "workload_title"]

Row = Mapping[str, Any]
_METRICS = ("dau", "wau", "mau")


def markdown(about: Row, outcomes: Sequence[Row]) -> str:
    """The report; every figure in it is one of `summarize` or of `about`."""
    summary = summarize(outcomes)
    parts = [
        _head(about),
        _claim(summary),
        _comparison(summary),
        _removals(summary),
        _intervals(summary),
        _speed(outcomes),
        _NOTES,
    ]
    return "\n\n".join(parts) + "\n"


def workload_title(row: Row) -> str:
    """What data a row is about, in a few words."""
    if row["data"] != "synthetic":
        return str(row["data"])
    return f"{row['users']:,} users"


def _head(about: Row) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return f"""# Experiment {about["experiment_id"]}

Run it again: `{about["command"]}`

| what | value |
|---|---|
| grid | {about["preset"]}, streams from seed {about["seed"]} |
| took | {about["seconds"]:,} s in {about["workers"]} processes |
| machine | {about["machine"]} |
| versions | {versions} |

Streams are the same for the same seed. Noise is drawn from the operating system and is never the
same, so figures move by what the ranges between the seeds show."""


def _claim(summary: Sequence[Row]) -> str:
    """The claim, per configuration of the plan, and then for every method."""
    plan = [row for row in summary if row["method"] == Method.PLAN and row["claim"] is not None]
    settings = sorted({row["setting"] for row in plan})
    columns = [(metric, setting) for setting in settings for metric in _METRICS]
    names = [f"{metric.upper()}, ε = {setting:g}" for metric, setting in columns]
    found = {
        (_place(row), row["metric"], row["setting"]): f"{_verdict(row)} {_percent(row)}"
        for row in plan
    }
    body = [
        [*place, *(found.get((place, *column), "–") for column in columns)]
        for place in _unique(map(_place, plan))
    ]
    count = []
    both = {(_place(row), row["setting"]) for row in plan}
    for method in Method:
        rows = [
            row
            for row in summary
            if row["method"] == method
            and (method is Method.ON_DEMAND or (_place(row), row["setting"]) in both)
        ]
        for metric in _METRICS:
            of = [row for row in rows if row["metric"] == metric and row["claim"] is not None]
            spent = [row["epsilon"] for row in rows if row["metric"] == metric]
            if spent:
                held = sum(row["claim"] for row in of)
                verdict = f"{held} of {len(of)}" if of else f"none: at least ε {min(spent):.3g}"
                count.append([TITLES[method], metric.upper(), verdict])
    return f"""## The claim

The median relative error is under {CLAIM_ERROR:.0%} at ε ≤ {CLAIM_EPSILON:g} for the whole month.
Below, for the month plan, whose ε pays for the DAU, WAU and MAU of every day together.

{_table(["data", "removed", *names], body)}

For each method, in how many of these configurations it holds; on demand, in how many of those whose
days together cost at most ε = {CLAIM_EPSILON:g}. The ε of the plan and of shared noise over all
metrics pays for three numbers a day, that of the others for one.

{_table(["method", "metric", "holds"], count)}"""


def _comparison(summary: Sequence[Row]) -> str:
    """All methods without removals, side by side at one total."""
    sections = []
    plain = [row for row in summary if not row["removed"]]
    settings = {row["setting"] for row in plain if row["method"] == Method.PLAN}
    for title in _unique(map(workload_title, plain)):
        here = [row for row in plain if workload_title(row) == title]
        rows = [
            [
                f"{row['epsilon']:.3g}",
                f"{row['delta']:g}",
                TITLES[Method(row["method"])],
                str(row["numbers"]),
                row["metric"].upper(),
                f"{row['absolute_median']:,.1f}",
                f"{row['absolute_p95']:,.1f}",
                _percent(row),
                f"{row['relative_low_high']}",
            ]
            for row in _ordered(here)
            if row["setting"] in settings or row["method"] == Method.ON_DEMAND
        ]
        header = [
            "ε of the month",
            "δ",
            "method",
            "numbers",
            "metric",
            "median error, users",
            "95th",
            "median relative error",
            "least and greatest seed",
        ]
        sections.append(f"### {title}\n\n{_table(header, rows)}")
    joined = "\n\n".join(sections)
    return f"""## Methods without removals

ε and δ are what everything under one promise costs together; `numbers` says how much that is. Rows
with the same ε, δ and metric can be compared. `{TITLES[Method.ON_DEMAND]}` spends its ε on every
day anew, so its total is far above the others.

{joined}"""


def _ordered(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """By metric, ε and error, with the range of the seeds in words."""
    found = [
        {
            **row,
            "relative_low_high": f"{row['relative_median_low']:.2%} … "
            f"{row['relative_median_high']:.2%}",
        }
        for row in rows
    ]
    return sorted(
        found,
        key=lambda row: (
            _METRICS.index(row["metric"]),
            row["method"] == Method.ON_DEMAND,
            row["setting"],
            row["absolute_median"],
        ),
    )


def _removals(summary: Sequence[Row]) -> str:
    """MAU on the day before the most active users are removed, and on that day."""
    settings = {row["setting"] for row in summary if row["method"] == Method.PLAN}
    chosen = [
        row
        for row in summary
        if row["metric"] == "mau"
        and row["exact_before"] is not None
        and row["method"] in (Method.PLAN, Method.IGNORES)
        and row["setting"] in settings
    ]
    places = _unique(map(_place, chosen))
    chosen.sort(
        key=lambda row: (places.index(_place(row)), row["setting"], row["method"] != Method.PLAN)
    )
    rows = [
        [
            *_place(row),
            f"{row['setting']:g}",
            TITLES[Method(row["method"])],
            f"{row['exact_before']:,.0f} → {row['exact_after']:,.0f}",
            f"{row['before']:,.0f} → {row['after']:,.0f}",
            f"{row['bias']:+,.1f}",
        ]
        for row in chosen
    ]
    header = ["data", "removed", "ε", "method", "exact MAU", "published MAU", "mean error, users"]
    return f"""## Around the removal

The most active users ask to be removed, all on one day in the middle of the month; one in ten of
them comes back. Means over the seeds, the day before → the day itself; the mean error is over all
days of the month.

{_table(header, rows) if rows else "This grid has no such removal."}"""


def _intervals(summary: Sequence[Row]) -> str:
    """The share of days whose exact count lies in the stated interval."""
    labels = _unique(row["removal"] for row in summary)
    body = []
    for method in Method:
        for metric in _METRICS:
            cells = []
            for label in labels:
                of = [
                    row
                    for row in summary
                    if (row["method"], row["metric"], row["removal"]) == (method, metric, label)
                ]
                days = sum(row["days"] for row in of)
                held = sum(round(row["inside_share"] * row["days"]) for row in of)
                share = Share(held, days) if days else None
                cells.append(f"{share.value:.1%} ± {share.standard_error:.1%}" if share else "–")
            if set(cells) != {"–"}:
                body.append([TITLES[method], metric.upper(), *cells])
    return f"""## Intervals

The share of days on which the exact count lies within the stated 95 % interval, over all data and
all ε, with its binomial standard error. Noise that is common to the days of a month makes the true
uncertainty larger than that.

{_table(["method", "metric", *(f"removed: {label}" for label in labels)], body)}"""


def _speed(outcomes: Sequence[Row]) -> str:
    """Throughput and latency, medians over the runs of each size."""
    names = {
        "events_per_second": "events a second",
        "plan_open_ms": "open a plan, ms",
        "plan_step_ms": "a plan's day, ms",
        "plan_read_ms": "read a number, ms",
        "on_demand_ms": "on demand, ms",
        "erase_ms": "erase a user, ms",
    }
    body = []
    for title in _unique(map(workload_title, outcomes)):
        timings = [one["timing"] for one in outcomes if workload_title(one) == title]
        cells = []
        for name in names:
            values = [one[name] for one in timings if one[name] is not None]
            cells.append(f"{median(values):,.1f}" if values else "–")
        body.append([title, *cells])
    return f"""## Speed

Wall clock, medians over the runs, with {len(outcomes)} runs sharing the machine.

{_table(["data", *names.values()], body)}"""


_NOTES = """## How to read this

- Errors are against the exact count at the moment of the release. A relative error divides by that
  count, or by 1 where it is 0.
- A removal takes effect before its day closes. A plan never takes back a day that is closed: after
  a `-` for such days its later windows still hold them until the month ends, which shows as a bias
  in the rows with `retract`. An erasure takes effect at once; whoever comes back after it counts
  again next month, which shows as a bias in the rows with `adversarial erase`.
- Tree and square-root Toeplitz assume that one user changes a series a bounded number of times, on
  data that come on time. Removals by `-` and returning users break that, and the plan, which keeps
  to its bound by construction, has the error in place of the risk.
- Real data have no history before their first day but what the data set has."""


def _place(row: Row) -> tuple[str, str]:
    return workload_title(row), str(row["removal"])


def _verdict(row: Row) -> str:
    return "yes" if row["claim"] else "**no**"


def _percent(row: Row) -> str:
    return f"{row['relative_median']:.2%}"


def _unique(items: Iterable[Any]) -> list[Any]:
    """Each item once, in order of appearance."""
    return list(dict.fromkeys(items))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    line: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
