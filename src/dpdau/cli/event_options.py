"""The options that say what the events of a file look like, and what became of them."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from dpdau.cli import completion
from dpdau.domain import Op
from dpdau.errors import InvalidEventError

if TYPE_CHECKING:
    from dpdau.ingest.batch import IngestReport
    from dpdau.ingest.event_file import Counted

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="ndjson, csv or parquet; else by the name.",
        autocompletion=completion.formats,
    ),
]
UserOption = Annotated[str, typer.Option("--user", help="Field of the user id.")]
DayOption = Annotated[str, typer.Option("--day", help="Field of the day.")]
OpOption = Annotated[
    str, typer.Option("--op", help="Field of the op; in a file of columns without it all are +.")
]
TsOption = Annotated[str, typer.Option("--ts", help="Field of a time, in place of the day.")]
DefaultOpOption = Annotated[
    str | None, typer.Option("--default-op", help="+ or -: the op of an item that has none.")
]
_SHOWN_REJECTIONS: Final = 10


def parse_op(text: str | None) -> Op | None:
    """The op of `--default-op`."""
    try:
        return None if text is None else Op(text)
    except ValueError:
        raise InvalidEventError(f"Expected --default-op {' or '.join(Op)}.", field="op") from None


def tell_rejected(report: "IngestReport | Counted") -> None:
    """The first items that were not taken, on standard error."""
    for one in report.rejected[:_SHOWN_REJECTIONS]:
        typer.echo(f"  row {one.index}: {one.code.value}: {one.message}", err=True)
    more = report.rejected_count - _SHOWN_REJECTIONS
    if more > 0:
        typer.echo(f"  and {more:,} more", err=True)
