"""The command that takes events from Kafka."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dpdau.cli.session import JsonOption, local_app

if TYPE_CHECKING:
    from dpdau.app import App
    from dpdau.app.consuming import Consumption, Standing
    from dpdau.app.streaming import Streaming

WORKERS_MAX: Final = 64
STATUS_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(consume)


def consume(
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            max=WORKERS_MAX,
            help="Members of the group; of no use with SPARK_MASTER.",
        ),
    ] = 1,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when all that the topic has is stored.")
    ] = False,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap", help="Go on without messages that were deleted before they were read."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take events from Kafka into the store of this machine, each once, until it is told to stop.
    With SPARK_MASTER, Spark reads them into the lake."""
    from dpdau.telemetry import configure_logs

    configure_logs()
    with _stop_signals() as stopped, local_app(alone=True, reported=False) as app:
        consumption = _consumption(app, workers, until_end=until_end, accept_gap=accept_gap)
        app.attach(consumption)
        consumption.start()
        began = time.monotonic()
        _watch(consumption, stopped, until_end=until_end, as_json=as_json)
        consumption.close()
        _tell(consumption.standing(), time.monotonic() - began, as_json=as_json)


def _consumption(
    app: "App", workers: int, *, until_end: bool, accept_gap: bool
) -> "Consumption | Streaming":
    """What takes events into the store of an app: members of a group, or a query of Spark."""
    if app.settings.SPARK_MASTER is not None:
        from dpdau.app.streaming import Streaming

        return Streaming(app, until_end=until_end, accept_gap=accept_gap)
    from dpdau.app.consuming import Consumption

    return Consumption(app, workers=workers, accept_gap=accept_gap)


def _watch(
    consumption: "Consumption | Streaming",
    stopped: threading.Event,
    *,
    until_end: bool,
    as_json: bool,
) -> None:
    """Waits for the end, and tells how it goes: lines for a program, a line on a terminal."""
    from dpdau.cli.output import row_progress

    told_at, rows = time.monotonic(), 0
    with row_progress("consuming") as progress:
        while not (stopped.wait(_LOOK_SECONDS) or (until_end and consumption.is_at_end)):
            standing = consumption.standing()
            if standing.report.received > rows:
                rows = standing.report.received
                progress(rows)
            if as_json and time.monotonic() - told_at >= STATUS_SECONDS:
                told_at = time.monotonic()
                typer.echo(json.dumps(standing.to_json()))


def _tell(standing: "Standing", seconds: float, *, as_json: bool) -> None:
    """What was stored."""
    from dpdau.cli.output import rate

    if as_json:
        typer.echo(json.dumps(standing.to_json()))
        return
    report = standing.report
    typer.echo(
        f"{report.received:,} received = {report.accepted:,} accepted + {report.duplicate:,} "
        f"duplicate + {report.late:,} late + {report.rejected_count:,} rejected"
    )
    if standing.lost:
        typer.echo(f"lost: up to {standing.lost:,} messages, deleted before they were read")
    typer.echo(f"in {seconds:.1f} s, {rate(report.received, seconds)}", err=True)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """A flag that SIGTERM and SIGINT set, for as long as this lasts."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, lambda *_: stopped.set()) for one in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
