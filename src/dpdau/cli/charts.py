"""Released numbers as charts of characters: one panel a metric, its 95 % band behind it."""

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dpdau.domain import Answer

WIDTH_MIN: Final = 40
PANEL_ROWS: Final = 12
_TICKS_MAX: Final = 8
_TICK_COLUMNS: Final = 18
_USER_TICKS: Final = 5
_FRAME: Final = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")
_THEME: Final = "dpdau"
_Points = list[tuple[int, float, float, float]]
"""(day, estimate, low, high), by day."""


def chart(answers: "Sequence[Answer]", *, width: int, ascii_only: bool, color: bool) -> str:
    """The answers as panels from top to bottom, in the order of their metrics and windows.

    Args:
        answers: What was released, of one segment or of everyone.
        width: Columns; at least `WIDTH_MIN` are used.
        ascii_only: Draws with ASCII alone.
        color: Whether escape codes for colors may be in it.
    """
    panels: dict[tuple[str, int], _Points] = {}
    for one in answers:
        release = one.release
        points = panels.setdefault((release.metric.value, release.window.days), [])
        low, high = float(release.lower_95), float(release.upper_95)
        points.append((release.window.end.toordinal(), float(release.estimate), low, high))
    text = "\n".join(
        f"{metric.upper()}, users active in {'a day' if days == 1 else f'{days} days'}\n"
        + _panel(sorted(points), max(width, WIDTH_MIN), ascii_only=ascii_only, color=color)
        for (metric, days), points in panels.items()
    )
    point, band = _marks(ascii_only=ascii_only)
    return f"{text}\n{point} released   {band} 95 % interval\n"


def _panel(points: _Points, width: int, *, ascii_only: bool, color: bool) -> str:
    """One metric over its days."""
    import plotext  # type: ignore[import-untyped]

    point, band = _marks(ascii_only=ascii_only)
    plotext.add_theme(_THEME)
    plotext.terminal.limit(width=False, height=False)
    figure = plotext.figure
    figure.clear()
    figure.theme(_THEME)
    figure.plot_size(width, PANEL_ROWS)
    figure.draw(_band(figure, points, width, plotext.marker(band, "cyan")))
    days, estimates = [day for day, *_ in points], [one[1] for one in points]
    figure.draw(figure.signal(days, estimates, marker=plotext.marker(point, "blue+")))
    low, high = min(one[2] for one in points), max(one[3] for one in points)
    figure.ruler("y").lim(low, max(high, low + 1))
    figure.ruler("y").ticks(*_user_ticks(low, max(high, low + 1)))
    figure.ruler("x").ticks(*_day_ticks(days[0], days[-1], width))
    if days[0] == days[-1]:
        figure.ruler("x").lim(days[0] - 1, days[0] + 1)
    drawn = str(figure.build().string(colorless=not color))
    figure.clear()
    return "\n".join(
        line.rstrip() for line in (drawn.translate(_FRAME) if ascii_only else drawn).splitlines()
    )


def _band(figure: Any, points: _Points, width: int, marker: Any) -> Any:
    """A vertical stroke for each day and, between days that follow each other, each column."""
    strokes = [(float(day), low, high) for day, _, low, high in points]
    span = max(points[-1][0] - points[0][0], 1)
    steps = max(1, 2 * width // span)
    for (day, _, *before), (following, _, *after) in pairwise(points):
        if following - day == 1:
            for step in range(1, steps):
                share = step / steps
                low, high = (a + (b - a) * share for a, b in zip(before, after, strict=True))
                strokes.append((day + share, low, high))
    signal = figure.signal(
        [at for at, *_ in strokes for _ in range(2)],
        [end for _, *ends in strokes for end in ends],
        marker=marker,
    )
    for index in range(1, 2 * len(strokes), 2):
        signal.line(index)
    return signal.density("full")


def _day_ticks(first: int, last: int, width: int) -> tuple[list[int], list[str]]:
    """Days that fit under a panel, the first and the last among them, with their labels."""
    parts = min(_TICKS_MAX, max(1, width // _TICK_COLUMNS), max(last - first, 1))
    days = sorted({first + (last - first) * part // parts for part in range(parts + 1)})
    return days, [dt.date.fromordinal(day).isoformat() for day in days]


def _user_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Whole numbers of users at equal distances."""
    parts = _USER_TICKS - 1
    places = sorted({round(low + (high - low) * part / parts) for part in range(_USER_TICKS)})
    return [float(one) for one in places], [f"{one:,}" for one in places]


def _marks(*, ascii_only: bool) -> tuple[str, str]:
    """The marks of a number and of its band, told apart without color."""
    return ("o", ":") if ascii_only else ("●", "░")
