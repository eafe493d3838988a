"""The figure of what was released: each metric with its 95 % band, drawn from releases alone."""

import datetime as dt
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpdau.domain import Answer, Release, Segment
from dpdau.errors import NotFoundError
from dpdau.eval.pictures import saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_series"]

_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_HASH_LENGTH, _SLUG_LENGTH_MAX = 8, 40
_WIDTH, _PANEL_HEIGHT, _CAPTION_HEIGHT = 11.0, 2.6, 1.1


def draw_series(answers: Sequence[Answer], folder: Path) -> list[Path]:
    """Draws a series, one panel a metric and window, as PNG and SVG; returns the files.

    Args:
        answers: What was released, of one segment or of everyone, in day order.
        folder: Where to; it is made.

    Raises:
        NotFoundError: Nothing was released, or matplotlib is not installed.
        StoreUnavailableError: The files cannot be written there.
    """
    if not answers:
        raise NotFoundError("Expected released numbers in that range, found none.")
    first, last = answers[0].release.window.end, answers[-1].release.window.end
    metrics = dict.fromkeys(one.release.metric.value for one in answers)
    name = "_".join(["series", *metrics, first.isoformat(), last.isoformat()])
    segment = answers[0].release.segment
    if segment is not None:
        name += f"_{_slug(segment)}"
    with saving(folder) as save:
        return save(name, _figure(answers))


def _slug(segment: Segment) -> str:
    """A segment as a part of a file's name, another for each: what is left of it, and a hash."""
    digest = hashlib.sha256(str(segment).encode()).hexdigest()[:_HASH_LENGTH]
    words = re.sub(r"[^a-z0-9]+", "-", str(segment).lower())[:_SLUG_LENGTH_MAX].strip("-")
    return f"{words}-{digest}"


def _figure(answers: Sequence[Answer]) -> "Figure":
    """Panels over one axis of days."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    locate: Any = AutoDateLocator
    label: Any = ConciseDateFormatter
    panels: dict[tuple[str, int], list[Release]] = {}
    for one in answers:
        key = (one.release.metric.value, one.release.window.days)
        panels.setdefault(key, []).append(one.release)
    size = (_WIDTH, _PANEL_HEIGHT * len(panels) + _CAPTION_HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    every = answers[0].release
    whom = "everyone" if every.segment is None else str(every.segment)
    figure.suptitle(f"Active users, {whom}", fontweight="bold", x=0.01, ha="left")
    epsilons = sorted({one.release.epsilon for one in answers})
    figure.supxlabel(
        "Released numbers; bands are their stated 95 % intervals. Days in "
        f"{every.timezone}. ε {', '.join(f'{one:g}' for one in epsilons)} of the promise that "
        "each number belongs to.",
        fontsize=8.5,
        color="#333333",
        x=0.01,
        ha="left",
    )
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for index, ((metric, window_days), releases) in enumerate(panels.items()):
        axis, color = axes[index], _COLORS[index % len(_COLORS)]
        days, center, low, high = _unbroken(releases)
        axis.fill_between(days, low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(days, center, color=color, marker="o", markersize=3, linewidth=1)
        length = "a day" if window_days == 1 else f"{window_days} days"
        axis.set(title=f"{metric.upper()}, {length}", ylabel="users")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_locator(locator := locate())
        axis.xaxis.set_major_formatter(label(locator))
    return figure


def _unbroken(releases: Sequence[Release]) -> tuple[Any, Any, Any, Any]:
    """Every day of a range with its number and band; NaN where nothing was published."""
    first, last = releases[0].window.end, releases[-1].window.end
    days = [first + dt.timedelta(days=offset) for offset in range((last - first).days + 1)]
    known = {one.window.end: one for one in releases}
    rows = [
        (known[day].estimate, known[day].lower_95, known[day].upper_95)
        if day in known
        else (math.nan, math.nan, math.nan)
        for day in days
    ]
    center, low, high = zip(*rows, strict=True)
    return days, center, low, high
