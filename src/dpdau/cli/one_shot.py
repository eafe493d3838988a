"""The command that turns events into the numbers of a month, and keeps nothing else."""

import re
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dpdau.cli.event_options import (
    DayOption,
    DefaultOpOption,
    FormatOption,
    OpOption,
    TsOption,
    UserOption,
    parse_op,
    tell_rejected,
)
from dpdau.cli.plans import show_quote
from dpdau.cli.session import JsonOption, print_json, settings
from dpdau.domain import Metric, Op
from dpdau.errors import InvalidSettingError

if TYPE_CHECKING:
    from dpdau.app.one_shot import OneShotAnswer
    from dpdau.app.reading import Events, Reading
    from dpdau.ingest.rules import Fields
    from dpdau.ingest.warehouse import Place
    from dpdau.mechanisms.matrix.covariance import Progress
    from dpdau.settings import Settings

_WATCH_SECONDS: Final = 0.1
_HIDDEN: Final = "…"
_SHOWN: Final = frozenset({"sslmode", "table", "use_ssl"})
"""The options of an address that are no secrets."""


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(release)


def release(
    context: typer.Context,
    month: Annotated[str, typer.Option("--month", help="A month that is over, YYYY-MM.")],
    path: Annotated[
        str | None,
        typer.Option(
            "--from", help="A file of events: Parquet, NDJSON or CSV; plain, gzip or zstd."
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--events", help="In its place a table elsewhere: ENGINE://…?table=NAME."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="A Spark that counts Parquet or a table of its own: local[N], spark://HOST:PORT, "
            "sc://HOST:PORT, yarn, k8s://….",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option("--order", help="Column of a table that says which row came first."),
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option("--epsilon", help="ε of the month; PLAN_EPSILON unless given.")
    ] = None,
    delta: Annotated[
        str | None, typer.Option("--delta", help="δ of the month; PLAN_DELTA unless given.")
    ] = None,
    file_format: FormatOption = None,
    user: UserOption = "user_id",
    day: DayOption = "day",
    op: OpOption = "op",
    ts: TsOption = "ts",
    default_op: DefaultOpOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the price and the precision; read nothing.")
    ] = False,
    show_sql: Annotated[
        bool, typer.Option("--show-sql", help="Show what a table is asked; release nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Release a whole month from a file or a table, for one charge; the activity is not kept."""
    terms = {"epsilon": _decimal("epsilon", epsilon), "delta": _decimal("delta", delta)}
    default = parse_op(default_op)
    from dpdau.app.reading import Reading, with_terms
    from dpdau.ingest.rules import Fields

    loaded = with_terms(settings(), **terms)
    where = _Where(
        path=path, table=table, engine=engine, order=order, file_format=file_format, settings=loaded
    )
    events = where.events(Fields(user_id=user, day=day, op=op, ts=ts), default)
    if show_sql:
        _show_sql(loaded, month, events)
        return
    with Reading(loaded, month, events) as reading, _solving() as progress:
        if not dry_run:
            # The counting has begun when the libraries of everything else are imported.
            reading.start_early()
        from dpdau.app.one_shot import OneShot

        with OneShot(loaded, progress=progress) as product:
            if dry_run:
                show_quote(product.price(month), as_json=as_json, buy=_buying(context))
                return
            watch = _watch if sys.stderr.isatty() else None
            answer = product.release(reading, watch=watch)
    _tell(answer, events)
    if as_json:
        print_json([one.to_json() for one in answer.answers])
        return
    _show(answer, month)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """The options that say where the events are, and who counts them."""

    path: str | None
    table: str | None
    engine: str | None
    order: str | None
    file_format: str | None
    settings: "Settings"

    def events(self, fields: "Fields", op_default: Op | None) -> "Events":
        """The file or the table, of which one is given.

        Raises:
            InvalidSettingError: None is, or both are, or an option is the other's.
        """
        from dpdau.app.reading import Source, TableSource

        if (self.path is None) == (self.table is None):
            raise InvalidSettingError("Expected one of --from and --events, found both or none.")
        if self.path is not None and self.engine is None:
            if self.order is not None:
                raise InvalidSettingError(
                    "Expected no --order for a file, whose rows are in an order, found one."
                )
            path = Path(self.path)
            return Source(
                path=path, file_format=self.file_format, fields=fields, op_default=op_default
            )
        if self.table is not None and self.file_format is not None:
            raise InvalidSettingError("Expected no --format for a table, found one.")
        from dpdau.cli.frames import show_data_frames

        # Ibis asks a Postgres for nothing without them.
        show_data_frames()
        return TableSource(
            place=self._place(), order=self.order, fields=fields, op_default=op_default
        )

    def _place(self) -> "Place":
        """What an engine is asked about."""
        from dpdau.ingest.warehouse import TableAddress

        address = None if self.table is None else TableAddress.parse(self.table)
        if address is not None and address.engine != "pyspark" and self.engine is None:
            return address
        from dpdau.ingest.warehouse_spark import SparkFiles, SparkTable

        options = self.settings.spark_options
        if address is not None:
            return SparkTable.of(address, master=self.engine, options=options)
        assert self.path is not None and self.engine is not None
        return SparkFiles.of(
            self.path, master=self.engine, options=options, file_format=self.file_format
        )


def _buying(context: typer.Context) -> str:
    """The command as it was given, without a dry run, and without what may be a secret."""
    words = ["dpdau", "release"]
    for one in context.command.params:
        value: Any = context.params.get(one.name or "")
        source = context.get_parameter_source(one.name or "")
        if source is not None and source.name == "COMMANDLINE" and isinstance(value, str):
            words += [one.opts[0], _without_secrets(value)]
    return shlex.join(words)


def _without_secrets(text: str) -> str:
    """An address without who asks and without the values of options; anything else as it is."""
    if ":" not in text:
        return text
    text = re.sub(r"^([^:]*:/*).*@", rf"\1{_HIDDEN}@", text, flags=re.DOTALL)
    start, between = (r"([;?#])", ";") if text.startswith("sc:") else (r"(\?)", "&")
    place, *options = re.split(start, text, maxsplit=1)
    if not options:
        return text
    shown = []
    for one in options[1].split(between):
        name, mark, _ = one.partition("=")
        shown.append(one if name in _SHOWN else f"{name}={_HIDDEN}" if mark else _HIDDEN)
    return f"{place}{options[0]}{between.join(shown)}"


def _show_sql(loaded: "Settings", month: str, events: "Events") -> None:
    """The queries that a table would be asked, on standard output.

    Raises:
        InvalidSettingError: The events are a file that no engine is asked about.
    """
    from dpdau.app.reading import Reading, TableSource

    if not isinstance(events, TableSource):
        raise InvalidSettingError("Expected --events or --engine with --show-sql, found neither.")
    with Reading(loaded, month, events) as reading:
        for query in events.open(reading.rules, reading.span).sql():
            typer.echo(f"{query};\n")


def _tell(answer: "OneShotAnswer", source: "Events") -> None:
    """What was read, on standard error."""
    if answer.counted is None:
        typer.echo(
            f"The numbers are released already: {source.name} was not read, nothing was charged.",
            err=True,
        )
        return
    read = answer.counted
    typer.echo(
        f"{read.received:,} received = {read.received - read.rejected_count:,} accepted + "
        f"{read.rejected_count:,} rejected",
        err=True,
    )
    for fault, count in read.refused:
        typer.echo(f"  {count:,} rows: {fault.code.value}: {fault.message}", err=True)
    if not read.refused:
        tell_rejected(read)


def _show(answer: "OneShotAnswer", month: str) -> None:
    """A table for each metric, and what it cost."""
    from dpdau.cli.output import OUT, answer_table

    for metric in Metric:
        rows = [one for one in answer.answers if one.release.metric is metric]
        OUT.print(answer_table(rows, title=metric.value))
    first = answer.answers[0]
    price = f"ε {first.release.epsilon:g} at δ {first.release.delta:g}"
    if answer.replayed:
        OUT.print(f"stored before, nothing charged; {price} was charged once for {month}")
    else:
        OUT.print(f"charged once: {price} for all {len(answer.answers)} numbers of {month}")


def _watch(reading: "Reading") -> None:
    """Shows how far the counting is, on a terminal."""
    from dpdau.cli.output import share_progress

    with share_progress("reading events") as moved:
        while not reading.wait(_WATCH_SECONDS):
            moved(*reading.progress())


def _solving() -> "AbstractContextManager[Progress | None]":
    """Progress of a strategy that has to be solved, on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from dpdau.cli.output import solving_progress

    return solving_progress()


def _decimal(name: str, text: str | None) -> Decimal | None:
    """A privacy parameter exactly as it was written."""
    try:
        found = None if text is None else Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if found is not None and not found.is_finite():
        raise InvalidSettingError(f"Expected --{name} as a decimal number, found something else.")
    return found
