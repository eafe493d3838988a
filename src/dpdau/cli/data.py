"""Commands that take events in, and make some."""

import contextlib
import datetime as dt
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dpdau.cli import completion
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
from dpdau.cli.session import (
    ApiKeyOption,
    JsonOption,
    UrlOption,
    print_json,
    settings,
    verbs,
)
from dpdau.domain import Op, parse_day
from dpdau.errors import InvalidEventError, InvalidPlanError, UnsupportedMediaError

if TYPE_CHECKING:
    from dpdau.app import App, Verbs
    from dpdau.ingest.batch import IngestReport
    from dpdau.ingest.files import Chunk, FileFormat, Place
    from dpdau.ingest.rules import Fields, Rules

    _Submit = Callable[[Chunk, bool], Future[IngestReport]]

DATA_SETS: Final = frozenset({"cdnow", "nycflights"})
NAME_LENGTH_MAX: Final = 200
_NAME: Final = re.compile(rf"[!-~]{{1,{NAME_LENGTH_MAX}}}")
_NO_TODAY: Final = dt.date(9998, 12, 31)


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(ingest)
    app.command("generate-synthetic")(generate_synthetic)


def ingest(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="A file (NDJSON, CSV or Parquet; plain, gzip or zstd), or the name of a real data "
            "set: cdnow, nycflights. With SPARK_MASTER, also a folder of files.",
        ),
    ],
    file_format: FormatOption = None,
    user: UserOption = "user_id",
    day: DayOption = "day",
    op: OpOption = "op",
    ts: TsOption = "ts",
    default_op: DefaultOpOption = None,
    batch_id: Annotated[
        str | None,
        typer.Option(
            "--batch-id",
            help="A name for this content, and for no other: read again under it, a file changes "
            "nothing. A data set has its own name.",
        ),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Take in the events of a file. A run that was killed is gone on with; a file that is read
    again is applied again."""
    from dpdau.cli.output import rate
    from dpdau.ingest.rules import Fields

    fields = Fields(user_id=user, day=day, op=op, ts=ts)
    with verbs(url, api_key, reported=False) as product:
        began = time.perf_counter()
        report = ingest_file(
            product,
            source,
            file_format=file_format,
            fields=fields,
            op_default=parse_op(default_op),
            batch_id=batch_id,
        )
        seconds = time.perf_counter() - began
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(
        f"{report.received:,} received = {report.accepted:,} accepted + {report.duplicate:,} "
        f"duplicate + {report.late:,} late + {report.rejected_count:,} rejected"
    )
    typer.echo(f"in {seconds:.1f} s, {rate(report.received, seconds)}", err=True)
    tell_rejected(report)


def generate_synthetic(
    out: Annotated[
        Path, typer.Option("--out", help="Target: .parquet, .ndjson or .csv[.gz|.zst].")
    ],
    days: Annotated[int, typer.Option("--days", min=1, help="Number of days.")] = 30,
    users: Annotated[int, typer.Option("--users", min=1, help="Number of users.")] = 10_000,
    p_active: Annotated[
        float | None,
        typer.Option("--p-active", help="P(active on a day); else per user from Beta(0.5, 5)."),
    ] = None,
    delete_rate: Annotated[
        float, typer.Option("--delete-rate", help="Share of users all of whose days are removed.")
    ] = 0.0,
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern",
            help="Who is deleted, when: random, top, end, flip, adversarial.",
            autocompletion=completion.patterns,
        ),
    ] = "random",
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed; DEFAULT_SEED unless given.")
    ] = None,
    start: Annotated[str, typer.Option("--start", help="First day, YYYY-MM-DD.")] = "2026-01-01",
) -> None:
    """Write a synthetic turnstile stream; the same seed gives the same bytes."""
    from dpdau.cli.output import row_progress
    from dpdau.eval import workloads

    try:
        chosen = workloads.Pattern(pattern)
    except ValueError:
        known = ", ".join(workloads.Pattern)
        raise InvalidPlanError(f"Expected a pattern of {known}, found {pattern!r}.") from None
    stream = workloads.generate(
        users,
        days,
        parse_day(start),
        p_active=workloads.BetaActivity() if p_active is None else p_active,
        delete_rate=delete_rate,
        pattern=chosen,
        seed=settings().DEFAULT_SEED if seed is None else seed,
    )
    with row_progress(f"writing {out.name}") as progress:
        rows = workloads.write(out, stream, on_rows=progress)
    typer.echo(f"{out}: {rows:,} events")


def ingest_file(
    product: "Verbs",
    source: str,
    *,
    file_format: str | None = None,
    fields: "Fields | None" = None,
    op_default: Op | None = None,
    batch_id: str | None = None,
) -> "IngestReport":
    """Takes in a file or a named data set, chunk by chunk, with progress.

    Chunk k goes under the id `batch_id:k`. Without a `batch_id` a data set has its name as one, and
    what is sent to a service has one of this run. In a store of this machine a file goes on where
    a run that was killed had come to, and the report is of this run alone. Into a lake, Spark reads
    a file, or a folder of files, as one batch under the `batch_id`.

    Raises:
        InvalidEventError: The `batch_id` is no name.
    """
    from dpdau.app import App
    from dpdau.cli.output import byte_progress
    from dpdau.ingest.bulk import transfer

    name = _checked(source if batch_id is None and source in DATA_SETS else batch_id)
    reading = _Reading(source, file_format, fields, op_default, name)
    if isinstance(product, App) and reading.is_for_spark(product):
        return reading.into_lake(product)
    with contextlib.ExitStack() as held:
        if isinstance(product, App):
            path, chunks, submit = reading.into(product)
        else:
            sender = held.enter_context(ThreadPoolExecutor(max_workers=1))
            path, chunks, submit = reading.to_service(product, sender)
        progress = held.enter_context(byte_progress(path.name, path.stat().st_size))
        return transfer(
            chunks, submit, lambda chunk, done: progress.move(chunk.bytes_done, done.received)
        )


@dataclass(frozen=True, slots=True)
class _Reading:
    """A source and how it is read; `name` stands in the ids of its chunks."""

    source: str
    file_format: str | None
    fields: "Fields | None"
    op_default: Op | None
    name: str | None

    def is_for_spark(self, app: "App") -> bool:
        """Whether the store is a lake, into which Spark reads files by itself."""
        is_lake = app.settings.SPARK_MASTER is not None and not app.intake.passes_on
        return is_lake and self.source not in DATA_SETS

    def into_lake(self, app: "App") -> "IngestReport":
        """Has Spark read the files."""
        from dpdau.app.lake import ingest_path

        return ingest_path(
            app,
            Path(self.source),
            rules=self._rules(cutoff=app.rules().cutoff),
            file_format=self._format(),
            batch_id=self.name,
        )

    def into(self, app: "App") -> "tuple[Path, Iterator[Chunk], _Submit]":
        """The file, its chunks that are not in the store, and what has them written there."""
        rules = self._rules(cutoff=app.rules().cutoff)
        if self.source in DATA_SETS:
            path, chunks = self._open(rules)
            return (
                path,
                chunks,
                lambda chunk, _is_last: app.intake.submit(
                    chunk.decoded, batch_id=self._id(chunk, self.name)
                ),
            )
        from dpdau.ingest.bulk import name_of_reading

        path = Path(self.source)
        how = (self.file_format, rules.fields, self.op_default, self.name)
        progress = app.intake.progress(name_of_reading(path, *how))
        if progress.start.chunk:
            typer.echo(
                f"{path.name}: an earlier run ended early; going on at row {progress.start.row:,}.",
                err=True,
            )
        path, chunks = self._open(rules, progress.start)
        return (
            path,
            chunks,
            lambda chunk, is_last: app.intake.submit(
                chunk.decoded,
                batch_id=self._id(chunk, self.name),
                offsets=progress.offsets(None if is_last else chunk.end),
            ),
        )

    def to_service(
        self, product: "Verbs", sender: ThreadPoolExecutor
    ) -> "tuple[Path, Iterator[Chunk], _Submit]":
        """The file, its chunks, and what sends them.

        The service decides which days it takes: a run on a later day, or with another clock, would
        cut the same chunk into other parts.
        """
        name = self.name or f"run-{secrets.token_hex(16)}"
        path, chunks = self._open(replace(self._rules(), today=_NO_TODAY, retention_days=None))
        return (
            path,
            chunks,
            lambda chunk, _is_last: sender.submit(_sent, product, chunk, self._id(chunk, name)),
        )

    def _rules(self, **more: Any) -> "Rules":
        """What is taken, under the settings of this machine."""
        from dpdau.app import ingest_rules, system_clock

        loaded = settings()
        today = system_clock().astimezone(loaded.zone).date()
        rules = ingest_rules(loaded, today, fields=self.fields, **more)
        return replace(rules, op_default=self.op_default)

    def _open(self, rules: "Rules", start: "Place | None" = None) -> "tuple[Path, Iterator[Chunk]]":
        """The file behind the source and its chunks, from a place on."""
        if self.source in DATA_SETS:
            from dpdau.ingest import datasets

            if self.source == "cdnow":
                return datasets.cdnow_path(), datasets.read_cdnow(rules=rules)
            return datasets.nycflights_path(), datasets.read_nycflights(rules=rules)
        from dpdau.ingest import files

        path = Path(self.source)
        begin = files.START if start is None else start
        return path, files.read(path, rules=rules, file_format=self._format(), start=begin)

    def _format(self) -> "FileFormat | None":
        """The format that was named, if any."""
        from dpdau.ingest.files import FileFormat

        try:
            return None if self.file_format is None else FileFormat(self.file_format)
        except ValueError:
            known = ", ".join(FileFormat)
            raise UnsupportedMediaError(
                f"Expected a format of {known}, found {self.file_format!r}."
            ) from None

    def _id(self, chunk: "Chunk", name: str | None) -> str | None:
        """The id of a chunk, where the reading has a name."""
        return None if name is None else f"{name}:{chunk.number}"


def _sent(product: "Verbs", chunk: "Chunk", batch_id: str | None) -> "IngestReport":
    """Sends a chunk, in which a rejection has its place; the report has that in the file."""
    first = chunk.end.row - chunk.decoded.received
    local = [one.moved(-first) for one in chunk.decoded.rejected]
    report = product.ingest(replace(chunk.decoded, rejected=local), batch_id=batch_id)
    return replace(report, rejected=tuple(one.moved(first) for one in report.rejected))


def _checked(name: str | None) -> str | None:
    """A name that can stand in a header, with room for the numbers of chunks and parts."""
    if name is None or _NAME.fullmatch(name):
        return name
    raise InvalidEventError(
        f"Expected a --batch-id of 1..{NAME_LENGTH_MAX} letters, digits and signs of ASCII, without"
        " spaces."
    )
