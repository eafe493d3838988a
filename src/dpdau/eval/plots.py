"""The figures of an experiment, drawn from `results.json` alone, as PNG and SVG.

Colors are those of Okabe and Ito, which people with any kind of color vision can tell apart; every
method has a marker of its own too. What a bar or band shows is in the caption of its figure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.eval.measures import Share
from dpdau.eval.methods import TITLES, Method
from dpdau.eval.pictures import saving
from dpdau.eval.results import CLAIM_ERROR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw"]

_STYLE: Final = {
    Method.PLAN: ("#0072B2", "o"),
    Method.IGNORES: ("#D55E00", "X"),
    Method.SHARED_ALL: ("#56B4E9", "s"),
    Method.SHARED: ("#009E73", "D"),
    Method.TOEPLITZ: ("#CC79A7", "^"),
    Method.TREE: ("#E69F00", "v"),
    Method.GAUSSIAN: ("#777777", "P"),
    Method.LAPLACE: ("#000000", "*"),
    Method.ON_DEMAND: ("#999933", "<"),
}
_METRICS: Final = ("dau", "mau")
_SIZE: Final = (11.0, 4.6)
_AROUND_DAYS: Final = 8

Row = Mapping[str, Any]
Lines = Mapping[Method, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]


def draw(
    results: Row, folder: Path, *, on_done: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Draws every figure that the results have data for, and returns the files.

    Args:
        results: What `results.read` gives.
        folder: Where to; it is made.
        on_done: Is told how many figures are done, and of how many.

    Raises:
        NotFoundError: matplotlib is not installed.
        StoreUnavailableError: The files cannot be written there.
    """
    paths: list[Path] = []
    with saving(folder) as save:
        for done, (name, figure_of) in enumerate(FIGURES.items(), start=1):
            figure = figure_of(results)
            if figure is not None:
                paths += save(name, figure)
            if on_done is not None:
                on_done(done, len(FIGURES))
    return paths


def error_by_epsilon(results: Row) -> "Figure":
    """How the error falls with what the month may cost."""
    runs = [run for run in _runs(results) if not run["removed"]]
    figure, axes = _figure(
        "Error of a month against what it costs",
        "Root mean square error over the days of a month; mean over all data without removals, "
        "bars: ± 1 standard error over the runs. ε is that of everything under one promise, at "
        "δ = 1e-6: the DAU, WAU and MAU of all days for the month plan and for shared noise over "
        "all metrics, one metric for the others (δ = 0 for Laplace).",
        len(_METRICS),
    )
    for axis, metric in zip(axes, _METRICS, strict=True):
        lines = _by(runs, metric, "epsilon", lambda run: [_rms(run)])
        _draw_lines(axis, lines)
        axis.set(
            xscale="log",
            yscale="log",
            title=metric.upper(),
            xlabel="ε of the month",
            ylabel="error, users",
        )
        _plain_ticks(axis.xaxis, axis.yaxis)
    _legend(figure, axes)
    return figure


def error_by_day(results: Row) -> "Figure":
    """How the error moves over the days of the month."""
    setting = _setting(results)
    runs = [run for run in _runs(results) if run["setting"] == setting and _unharmed(run)]
    count = len({_workload(run) for run in runs})
    figure, axes = _figure(
        f"Error by day of the month, ε = {setting:g}",
        f"Root mean square error over {count} months without removals or with random erasures, "
        "bands: ± 1 standard error. ε as in the figure of the error against it.",
        len(_METRICS),
    )
    for axis, metric in zip(axes, _METRICS, strict=True):
        for method in _methods(runs, metric):
            mine = [run for run in runs if (run["method"], run["metric"]) == (method, metric)]
            if method is Method.ON_DEMAND:
                continue
            squares = np.square([_errors(run) for run in mine])
            center = np.sqrt(squares.mean(axis=0))
            # The delta method: the error of a root is that of the mean over twice the root.
            spread = squares.std(axis=0) / np.sqrt(len(mine)) / np.maximum(2 * center, 1e-9)
            days = np.arange(1, center.size + 1)
            color, marker = _STYLE[method]
            axis.plot(days, center, color=color, marker=marker, markersize=4, label=TITLES[method])
            axis.fill_between(
                days,
                np.maximum(center - spread, center / 4),
                center + spread,
                color=color,
                alpha=0.15,
                linewidth=0,
            )
        axis.set(
            yscale="log",
            title=metric.upper(),
            xlabel="day of the month",
            ylabel="error, users",
        )
        _plain_ticks(axis.yaxis)
    _legend(figure, axes)
    return figure


def mau_around_removal(results: Row) -> "Figure | None":
    """What a removal does to the exact MAU, to the plan's, and where removals are ignored."""
    setting = _setting(results)
    runs = [
        run
        for run in _runs(results)
        if run["pattern"] == "adversarial"
        and run["metric"] == "mau"
        and run["setting"] == setting
        and run["method"] in (Method.PLAN, Method.IGNORES)
    ]
    if not runs:
        return None
    users = min(run["users"] for run in runs)
    share = max(run["removed"] for run in runs)
    seed = min(run["seed"] for run in runs)
    chosen = [
        run for run in runs if (run["users"], run["removed"], run["seed"]) == (users, share, seed)
    ]
    chosen.sort(key=lambda run: list(Method).index(Method(run["method"])))
    kinds = sorted({run["kind"] for run in chosen})
    figure, axes = _figure(
        f"MAU around the day on which the most active {share:.0%} ask to be removed",
        f"One stream of {users:,} users, ε = {setting:g} for the month. Bands are the stated 95 % "
        "intervals. The dotted line is the day of the removal. An erasure takes effect at once; "
        "the one in ten who come back count in the plan from the next month on; a − for days that "
        "are closed changes no number of the month plan.",
        len(kinds),
    )
    words = {"erase": "removed by erasure", "retract": "removed by − events"}
    for axis, kind in zip(axes, kinds, strict=True):
        here = [run for run in chosen if run["kind"] == kind]
        exact = np.array(here[0]["exact"], dtype=np.float64)
        middle = exact.size // 2
        window = slice(max(0, middle - _AROUND_DAYS), middle + _AROUND_DAYS + 1)
        days = np.arange(1, exact.size + 1)[window]
        axis.plot(days, exact[window], color="black", linewidth=2, label="exact")
        for run in here:
            color, marker = _STYLE[Method(run["method"])]
            center = np.array(run["values"], dtype=np.float64)[window]
            half = np.array(run["half_widths"], dtype=np.float64)[window]
            axis.fill_between(
                days, center - half, center + half, color=color, alpha=0.18, linewidth=0
            )
            axis.plot(
                days,
                center,
                color=color,
                marker=marker,
                markersize=4,
                linewidth=1,
                label=TITLES[Method(run["method"])],
            )
        axis.axvline(middle + 1, color="#555555", linestyle=":", linewidth=1)
        axis.set(title=words[kind], xlabel="day of the month", ylabel="MAU, users")
        axis.set_xticks(days[::2])
        axis.yaxis.set_major_formatter("{x:,.0f}")
    _legend(figure, axes)
    return figure


def coverage(results: Row) -> "Figure":
    """Whether the stated intervals hold what they say."""
    runs = [run for run in _runs(results) if _unharmed(run) and run["method"] != Method.IGNORES]
    figure, axes = _figure(
        "Days on which the exact count lies in the stated 95 % interval",
        "All ε together, months without removals or with random erasures. Bars: ± 1 standard "
        "error over the runs, each run being one share; noise that is common to the days of a "
        "month makes some months good and others bad.",
        len(_METRICS),
    )
    for axis, metric in zip(axes, _METRICS, strict=True):
        methods = _methods(runs, metric)[::-1]
        for height, method in enumerate(methods):
            shares = [
                _inside(run).value
                for run in runs
                if (run["method"], run["metric"]) == (method, metric)
            ]
            color, marker = _STYLE[method]
            axis.errorbar(
                100 * np.mean(shares),
                height,
                xerr=100 * np.std(shares) / np.sqrt(len(shares)),
                color=color,
                marker=marker,
                capsize=3,
            )
        axis.axvline(95, color="#555555", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(methods)), [TITLES[method] for method in methods])
        axis.set_ylim(-0.5, len(methods) - 0.5)
        axis.set(title=metric.upper(), xlabel="share of days, %")
    return figure


def relative_error_by_users(results: Row) -> "Figure":
    """How the relative error falls with the number of users."""
    setting = _setting(results)
    rows = [
        row
        for row in results["summary"]
        if row["data"] == "synthetic" and not row["removed"] and row["setting"] == setting
    ]
    figure, axes = _figure(
        f"Relative error against the number of users, ε = {setting:g}",
        "Median over the days of all seeds without removals, bars: least and greatest seed. "
        f"The dashed line is {100 * CLAIM_ERROR:g} %. ε as in the figure of the error against it.",
        len(_METRICS),
    )
    for axis, metric in zip(axes, _METRICS, strict=True):
        for method in _methods(rows, metric):
            if method in (Method.ON_DEMAND, Method.IGNORES):
                continue
            mine = sorted(
                (row for row in rows if (row["method"], row["metric"]) == (method, metric)),
                key=lambda row: int(row["users"]),
            )
            center, low, high = (
                100 * np.array([row[f"relative_median{end}"] for row in mine])
                for end in ("", "_low", "_high")
            )
            color, marker = _STYLE[method]
            axis.errorbar(
                [row["users"] for row in mine],
                center,
                # The median of all days need not lie between those of the seeds.
                yerr=np.maximum([center - low, high - center], 0),
                color=color,
                marker=marker,
                capsize=3,
                label=TITLES[method],
            )
        axis.axhline(100 * CLAIM_ERROR, color="#555555", linestyle="--", linewidth=1)
        axis.set(
            xscale="log",
            yscale="log",
            title=metric.upper(),
            xlabel="users",
            ylabel="median relative error, %",
        )
        _plain_ticks(axis.yaxis)
        users = sorted({int(row["users"]) for row in rows})
        axis.set_xticks(users, [f"{one:,}" for one in users], minor=False)
        axis.set_xlim(users[0] / 1.5, users[-1] * 1.5)
        axis.set_xticks([], minor=True)
    _legend(figure, axes)
    return figure


FIGURES: Final[Mapping[str, Callable[[Row], "Figure | None"]]] = {
    "error_by_epsilon": error_by_epsilon,
    "error_by_day": error_by_day,
    "mau_around_removal": mau_around_removal,
    "coverage": coverage,
    "relative_error_by_users": relative_error_by_users,
}
"""File name → how it is drawn; None where the results have no data for it."""


def _runs(results: Row) -> Iterable[dict[str, Any]]:
    """One row for each outcome, method, metric and ε, with the exact counts of that metric."""
    for outcome in results["outcomes"]:
        for one in outcome["estimates"]:
            yield {**outcome, **one, "exact": outcome["exact"][one["metric"]]}


def _errors(run: Row) -> NDArray[np.float64]:
    return np.array(run["values"], dtype=np.float64) - np.array(run["exact"], dtype=np.float64)


def _rms(run: Row) -> float:
    return float(np.sqrt(np.square(_errors(run)).mean()))


def _inside(run: Row) -> Share:
    held = np.abs(_errors(run)) <= np.array(run["half_widths"])
    return Share(int(held.sum()), held.size)


def _unharmed(run: Row) -> bool:
    """Whether nothing but noise keeps the plan from the exact counts."""
    return not run["removed"] or (run["pattern"], run["kind"]) == ("random", "erase")


def _workload(run: Row) -> tuple[Any, ...]:
    return run["data"], run["users"], run["removal"], run["seed"]


def _setting(results: Row) -> float:
    """The ε of the figures with one ε: the largest of the plan's up to 1, or its least."""
    settings = {row["setting"] for row in results["summary"] if row["method"] == Method.PLAN}
    return float(max((one for one in settings if one <= 1), default=min(settings)))


def _methods(rows: Sequence[Row], metric: str) -> list[Method]:
    """The methods that have rows for a metric, in the order of the legend."""
    found = {row["method"] for row in rows if row["metric"] == metric}
    return [method for method in Method if method in found and method is not Method.IGNORES]


def _by(
    runs: Sequence[Row], metric: str, name: str, value: Callable[[Row], Sequence[float]]
) -> Lines:
    """For each method: x, the mean over the runs at x, and its standard error."""
    lines = {}
    for method in _methods(runs, metric):
        groups: dict[float, list[float]] = {}
        for run in runs:
            if (run["method"], run["metric"]) == (method, metric):
                groups.setdefault(float(run[name]), []).extend(value(run))
        places = sorted(groups)
        lines[method] = (
            np.array(places),
            np.array([np.mean(groups[place]) for place in places]),
            np.array([np.std(groups[place]) / np.sqrt(len(groups[place])) for place in places]),
        )
    return lines


def _draw_lines(axis: "Axes", lines: Lines) -> None:
    for method, (place, center, spread) in lines.items():
        color, marker = _STYLE[method]
        axis.errorbar(
            place,
            center,
            yerr=spread,
            color=color,
            marker=marker,
            markersize=6,
            capsize=3,
            linewidth=1.3,
            label=TITLES[method],
        )


def _figure(title: str, caption: str, panels: int) -> "tuple[Figure, list[Axes]]":
    """A figure with a row of panels, a title above and a caption below."""
    import textwrap

    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(textwrap.fill(caption, 135), fontsize=8.5, color="#333333", x=0.01, ha="left")
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def _legend(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """One legend for all panels, beside them."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside right center", frameon=False, fontsize=9
    )


def _plain_ticks(*axes: "Axis") -> None:
    """Logarithmic axes with 1, 2 and 5 at each power of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(NullFormatter())
