"""What every command shares: its options, the way to the verbs, and how an error ends it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpdau.cli import completion
from dpdau.domain import Metric, Segment
from dpdau.errors import DpdauError, InvalidPlanError, outcome

if TYPE_CHECKING:
    from dpdau.app import App, Verbs
    from dpdau.mechanisms.matrix.covariance import Progress
    from dpdau.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Speak to the service at this URL (or SERVICE_HOST)."),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="API key for --url (or SERVICE_API_KEY).", show_default=False),
]
SegmentOption = Annotated[
    str | None,
    typer.Option(
        "--segment",
        help="Only users of this segment: dimension=value.",
        autocompletion=completion.segments,
    ),
]
MonthArgument = Annotated[
    str,
    typer.Argument(help="The month, YYYY-MM.", metavar="YYYY-MM", autocompletion=completion.months),
]
FromOption = Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")]
ToOption = Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD.")]
MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics",
        help="Comma-separated metrics: dau, wau, mau.",
        autocompletion=completion.metrics,
    ),
]


def settings(**overrides: Any) -> "Settings":
    """The loaded settings."""
    from dpdau.settings import load

    loaded = load(**overrides)
    if loaded.SPARK_MASTER is not None:
        from dpdau.cli.frames import show_data_frames

        show_data_frames()
    return loaded


@contextmanager
def verbs(
    url: str | None,
    api_key: str | None,
    *,
    reported: bool = True,
    progress: "Progress | None" = None,
) -> Iterator["Verbs"]:
    """The verbs: a client where a URL is known, else the data directory opened here.

    With `reported` off, budget blocks come without the figures that nobody will look at. Progress
    hears of a noise strategy that has to be solved here.
    """
    loaded = settings()
    where = url or loaded.SERVICE_HOST
    if where is None:
        with local_app(reported=reported, progress=progress) as app:
            yield app
        return
    from dpdau.client import Client

    bootstrap = loaded.SERVICE_API_KEY
    key = api_key or (bootstrap.get_secret_value() if bootstrap else None)
    with Client(where, api_key=key) as client:
        yield client


@contextmanager
def local_app(
    *,
    read_only: bool = False,
    alone: bool = False,
    reported: bool = True,
    progress: "Progress | None" = None,
) -> Iterator["App"]:
    """The data directory opened in this process, for the length of one command.

    With `read_only` the activity store is only read and the directory is not held, so the command
    works beside a running service; the ledger takes writers from any process. With `alone` it is
    refused beside anybody.
    """
    from dpdau.app import App

    opened = App.open(
        settings(), read_only=read_only, alone=alone, reported=reported, progress=progress
    )
    with opened.closing() as app:
        yield app


def parse_metrics(text: str) -> list[Metric]:
    """Reads a comma-separated list of metrics.

    Raises:
        InvalidPlanError: One of them is no metric.
    """
    try:
        return [Metric(part.strip()) for part in text.split(",")]
    except ValueError:
        known = ", ".join(Metric)
        raise InvalidPlanError(f"Expected metrics of {known}, found {text!r}.") from None


def parse_segment(text: str | None) -> Segment | None:
    """Reads dimension=value, where one is given."""
    return None if text is None else Segment.parse(text)


def print_json(body: Any) -> None:
    """JSON on standard output."""
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def fail(error: DpdauError, *, as_json: bool) -> int:
    """Words an error on standard error and returns its exit code."""
    if as_json:
        body = {"code": error.code, "detail": error.message, **error.facts}
        sys.stderr.write(json.dumps(body, default=str) + "\n")
    else:
        sys.stderr.write(f"dpdau: {error.message} [{error.code}]\n")
    return outcome(error).exit_code
