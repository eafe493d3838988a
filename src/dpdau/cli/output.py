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
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from dpdau.domain import RELATIVE_ERROR

if TYPE_CHECKING:
    from dpdau.cli.checks import Finding
    from dpdau.domain import Answer, BudgetBlock, GrowthAnswer, MonthQuote

_TICKS: Final = "▁▂▃▄▅▆▇█"
PIPE_COLUMNS: Final = 160
"""How wide a table may be where nobody's terminal says."""
PLOT_PIPE_COLUMNS: Final = 96
PLOT_COLUMNS_MAX: Final = 200
_STATUS_STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}

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


def print_chart(answers: "Sequence[Answer]") -> None:
    """Releases as charts, as wide as the terminal, in its characters and its colors if any."""
    from dpdau.cli.charts import chart

    text = chart(
        answers,
        width=min(OUT.width, PLOT_COLUMNS_MAX) if OUT.is_terminal else PLOT_PIPE_COLUMNS,
        ascii_only=OUT.options.ascii_only,
        color=OUT.color_system is not None and not OUT.no_color,
    )
    sys.stdout.write(text)


def finding_lines(finding: "Finding") -> list[Text]:
    """A finding of `dpdau doctor`: what was found and, unless all is well, what to do."""
    style = _STATUS_STYLES[finding.status]
    line = Text.assemble((f"{finding.status:8}", style), f" {finding.name:12} {finding.message}")
    return [line, *([Text(f"{'':21} {finding.todo}")] if finding.todo else [])]


def growth_table(answer: "GrowthAnswer") -> Table:
    """The four cells as rows, then the two windows that they add up to."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in [
        ("users", "left"),
        ("window", "left"),
        ("estimate", "right"),
        ("95 % interval", "right"),
        ("noise sd", "right"),
    ]:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    both = f"{answer.previous.window.start.isoformat()} … {answer.current.window.end.isoformat()}"
    for cell in answer.cells:
        figures = (f"{cell.estimate:,}", f"{cell.lower_95:,} … {cell.upper_95:,}")
        table.add_row(cell.metric.value, both, *figures, f"{cell.noise_stddev:.1f}")
    table.add_section()
    for name, total in (("current", answer.current), ("previous", answer.previous)):
        low, high = total.estimate - total.half_width_95, total.estimate + total.half_width_95
        table.add_row(
            name,
            f"{total.window.start.isoformat()} … {total.window.end.isoformat()}",
            f"{total.estimate:,}",
            f"{low:,} … {high:,}",
            f"{total.noise_stddev:.1f}",
        )
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


def month_table(quote: "MonthQuote") -> Table:
    """A month plan as rows: the precision of each metric, and whom it is precise enough for."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    segmented = any(line.segment for line in quote.lines)
    for name, justify in [
        ("metric", "left"),
        ("days", "right"),
        ("segment", "left"),
        ("noise sd", "right"),
        ("95 % half-width, least", "right"),
        ("most", "right"),
        ("by day", "left"),
        (f"users for ± {RELATIVE_ERROR:.0%}", "right"),
    ]:
        if name != "segment" or segmented:
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for line in quote.lines:
        widths = line.half_widths_95
        cells = [line.metric.value, str(line.window_days)]
        if segmented:
            cells.append("everyone" if line.segment is None else str(line.segment))
        cells += [
            f"{line.noise_stddev:.2f}",
            f"± {min(widths)}",
            f"± {max(widths)}",
            "".join(_TICKS[(len(_TICKS) - 1) * width // max(widths)] for width in widths),
            f"{line.smallest_population:,}",
        ]
        table.add_row(*cells)
    return table


@contextmanager
def solving_progress() -> Iterator["Callable[[int, float, float], None]"]:
    """How far a solver is: the error of the noise and the bound that nothing can beat."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None, told="")

        def told(updates: int, error: float, bound: float) -> None:
            progress.update(
                task,
                description="Solving for the least noise:",
                told=f"{updates:,} updates, error {error:.4f}, bound {bound:.4f}, "
                f"{progress.tasks[0].elapsed or 0:.0f} s",
            )

        yield told


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
    """Moves the bar to a byte position and states the events and their rate."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = progress.tasks[task].id
        self._events = 0

    def move(self, position: int, events: int) -> None:
        """The file is read up to `position`; `events` more are in the store."""
        self._events += events
        elapsed = self._progress.tasks[0].elapsed or 1e-9
        self._progress.update(
            self._task,
            completed=position,
            rate=f"{self._events:,} events, {rate(self._events, elapsed)}",
        )


def rate(events: int, seconds: float) -> str:
    """How fast events went."""
    return f"{events / seconds:,.0f} events/s"


@contextmanager
def share_progress(label: str) -> Iterator[Callable[[float, int], None]]:
    """A bar over the share of a file that is read, with rows, rate and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=1.0, rows="")

        def moved(share: float, rows: int) -> None:
            elapsed = progress.tasks[0].elapsed or 1e-9
            told = f"{rows:,} rows, {rows / elapsed:,.0f} rows/s"
            progress.update(task, completed=share, rows=told)

        yield moved


@contextmanager
def copy_progress(label: str, *, of_bytes: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar with time left for bytes, or other things, out of a total; nothing in a pipe."""
    done = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (TaskProgressColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *done, TimeRemainingColumn())
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def moved(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield moved


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
