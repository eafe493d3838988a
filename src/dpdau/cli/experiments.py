"""Commands that run the experiment on the product and draw its figures."""

import os
import secrets
import shlex
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpdau.cli.session import (
    ApiKeyOption,
    JsonOption,
    MetricsOption,
    SegmentOption,
    UrlOption,
    parse_metrics,
    parse_segment,
    print_json,
    settings,
    verbs,
)
from dpdau.domain import parse_day
from dpdau.errors import InvalidPlanError, InvalidSettingError

if TYPE_CHECKING:
    from dpdau.app import App
    from dpdau.domain import Clock
    from dpdau.settings import Settings

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder to use in place of DATA_DIR.")
]
IdOption = Annotated[
    str | None,
    typer.Option("--experiment-id", help="Name of the run's folder; EXPERIMENT_ID unless given."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("eval")(evaluate)
    app.command()(plots)


def evaluate(
    quick: Annotated[
        bool, typer.Option("--quick", help="A small grid, in seconds instead of minutes.")
    ] = False,
    out: OutOption = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Seed of streams; DEFAULT_SEED unless given."),
    ] = None,
    experiment_id: IdOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes; one for each processor unless given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the month plan with other methods; write experiments/ID/ under DATA_DIR."""
    from dpdau.eval import report, results
    from dpdau.eval.experiments import run
    from dpdau.eval.grid import FULL, QUICK

    loaded = _settings(experiment_id)
    chosen = QUICK if quick else FULL
    first = loaded.DEFAULT_SEED if seed is None else seed
    shared_by = workers or os.cpu_count() or 1
    began = time.perf_counter()
    with _progress("running") as told:
        outcomes = run(
            chosen,
            seed=first,
            open_app=open_app,
            timer=time.perf_counter,
            workers=shared_by,
            on_done=told,
        )
    words = ["dpdau", "eval", *(["--quick"] if quick else []), "--seed", str(first)]
    about = results.about(
        experiment_id=loaded.EXPERIMENT_ID,
        preset=chosen.name,
        seed=first,
        workers=shared_by,
        seconds=time.perf_counter() - began,
        command=shlex.join([*words, "--experiment-id", loaded.EXPERIMENT_ID]),
    )
    folder = (out or loaded.DATA_DIR) / "experiments" / loaded.EXPERIMENT_ID
    paths = results.write(folder, about, outcomes, report.markdown(about, outcomes))
    if as_json:
        print_json({"about": about, "summary": results.summarize(outcomes)})
        return
    for path in paths:
        typer.echo(path)


def plots(
    out: OutOption = None,
    experiment_id: IdOption = None,
    first: Annotated[
        str | None,
        typer.Option("--from", help="Draw what is released instead: the first day, YYYY-MM-DD."),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="The last day, YYYY-MM-DD; with --from.")
    ] = None,
    metrics: MetricsOption = "dau,wau,mau",
    segment: SegmentOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Draw the figures of an experiment, or of what is released, as PNG and SVG; under
    DATA_DIR/plots."""
    if (first is None) != (last is None):
        raise InvalidPlanError("Expected --from and --to together, found one of them.")
    if first is not None and last is not None:
        if experiment_id is not None:
            raise InvalidPlanError("Expected --experiment-id or --from and --to, found both.")
        paths = _draw_series(out, _Range(first, last, metrics, segment), url=url, api_key=api_key)
    else:
        paths = _draw_experiment(out, experiment_id)
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        typer.echo(path)


@dataclass(frozen=True, slots=True)
class _Range:
    """The words that say which releases are drawn."""

    first: str
    last: str
    metrics: str
    segment: str | None


def _draw_series(
    out: Path | None, asked: _Range, *, url: str | None, api_key: str | None
) -> list[Path]:
    """The figure of what is released in a range; never spends."""
    from dpdau.eval.series import draw_series

    with verbs(url, api_key, reported=False) as product:
        answers = product.series(
            parse_metrics(asked.metrics),
            parse_day(asked.first),
            parse_day(asked.last),
            segment=parse_segment(asked.segment),
        )
    return draw_series(answers, (out or settings().DATA_DIR) / "plots" / "released")


def _draw_experiment(out: Path | None, experiment_id: str | None) -> list[Path]:
    """The figures of a run, from its results."""
    from dpdau.eval import results
    from dpdau.eval.plots import draw

    loaded = _settings(experiment_id)
    root = out or loaded.DATA_DIR
    body = results.read(root / "experiments" / loaded.EXPERIMENT_ID / "results.json")
    with _progress("drawing") as told:
        return draw(body, root / "plots" / loaded.EXPERIMENT_ID, on_done=told)


def open_app(folder: Path, clock: "Clock", values: Mapping[str, Any]) -> "App":
    """A new app with a secret of its own; nothing but `values` differs from the defaults."""
    from pydantic import SecretStr

    from dpdau.app import App
    from dpdau.settings import Settings

    secret = SecretStr("b64:" + b64encode(secrets.token_bytes(32)).decode())
    # Built without validation, so that neither the environment nor a file reaches an experiment.
    chosen = Settings.model_construct(DATA_DIR=folder, HASH_SALT_SECRET=secret, **values)
    return App.open(chosen, clock=clock, reported=False)


def _settings(experiment_id: str | None) -> "Settings":
    """The settings, with the name of the run that was asked for.

    Raises:
        InvalidSettingError: The name could not be that of a folder.
    """
    from pydantic import TypeAdapter, ValidationError

    from dpdau.settings import Settings

    loaded = settings()
    if experiment_id is None:
        return loaded
    field = Settings.model_fields["EXPERIMENT_ID"]
    try:
        TypeAdapter(Annotated[str, *field.metadata]).validate_python(experiment_id)
    except ValidationError:
        raise InvalidSettingError(
            "Expected an --experiment-id of letters, digits, dots, - and _, at most 64 long, "
            f"found {experiment_id!r}.",
            setting="EXPERIMENT_ID",
        ) from None
    return loaded.model_copy(update={"EXPERIMENT_ID": experiment_id})


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on a terminal, nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from dpdau.cli.output import ERR

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield told
