"""How a terminal shows things: tables with intervals, budgets, and progress."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich import box
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from dpdau.domain import Answer, BudgetBlock

PIPE_COLUMNS: Final = 160
"""How wide a table may be where nobody's terminal says."""

OUT = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
ERR = Console(stderr=True, highlight=False)


def answer_table(answers: "Sequence[Answer]", title: str = "") -> Table:
    """Releases as rows: estimate as a figure and a bar, 95 % interval, price."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    segmented = any(one.release.segment for one in answers)
    for name, justify in [
        ("metric", "left"),
        ("day", "left"),
        ("days", "right"),
        ("segment", "left"),
        ("estimate", "right"),
        ("95 % interval", "right"),
        ("", "left"),
        ("noise sd", "right"),
        ("ε", "right"),
        ("δ", "right"),
    ]:
        if name != "segment" or segmented:
            table.add_column(name, justify=justify, no_wrap=name != "")  # type: ignore[arg-type]
    top: dict[str, int] = {}
    for one in answers:
        top[one.release.metric] = max(top.get(one.release.metric, 1), one.release.upper_95)
    for one in answers:
        release = one.release
        cells: list[RenderableType] = [
            release.metric.value,
            release.window.end.isoformat(),
            str(release.window.days),
        ]
        if segmented:
            cells.append("" if release.segment is None else str(release.segment))
        cells += [
            f"{release.estimate:,}",
            f"{release.lower_95:,} … {release.upper_95:,}",
            Bar(size=top[release.metric], begin=0, end=max(release.estimate, 0), width=24),
            f"{release.noise_stddev:.1f}",
            f"{release.epsilon:g}",
            f"{release.delta:g}",
        ]
        table.add_row(*cells)
    return table


def budget_table(blocks: "Sequence[BudgetBlock]") -> Table:
    """Budgets as rows: what is enforced first, then what is reported."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (
        "budget",
        "month",
        "filter",
        "cap ε",
        "spent",
        "left",
        "δ",
        "count",
        "RDP",
        "advanced",
        "PLD",
    ):
        left = name in ("budget", "month", "filter")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for one in blocks:
        table.add_row(
            one.metric,
            one.period,
            one.filter,
            f"{one.epsilon_cap:g}",
            f"{one.epsilon_spent:.4g}",
            f"{one.epsilon_remaining:.4g}",
            f"{one.delta:g}",
            str(one.release_count),
            *(
                "–" if figure is None else f"{figure:.4g}"
                for figure in (one.best_rdp_epsilon, one.advanced_epsilon, one.pld_epsilon)
            ),
        )
    return table


@contextmanager
def byte_progress(label: str, total: int) -> Iterator["ByteProgress"]:
    """A bar with rate and time left on a terminal, nothing in a pipe."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=max(total, 1), rate="")
        yield ByteProgress(progress, int(task))


class ByteProgress:
    """Moves the bar to a byte position and states the event rate."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = progress.tasks[task].id
        self._events = 0

    def move(self, position: int, events: int) -> None:
        """The file is read up to `position`; `events` more are in the store."""
        self._events += events
        elapsed = self._progress.tasks[0].elapsed or 1e-9
        self._progress.update(
            self._task, completed=position, rate=f"{self._events / elapsed:,.0f} events/s"
        )


@contextmanager
def row_progress(label: str) -> Iterator[Callable[[int], None]]:
    """A count of rows with their rate on a terminal, nothing in a pipe."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=None, rows="")

        def told(rows: int) -> None:
            elapsed = progress.tasks[0].elapsed or 1e-9
            progress.update(task, rows=f"{rows:,} rows, {rows / elapsed:,.0f} rows/s")

        yield told
