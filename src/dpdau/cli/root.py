"""The command tree, and the one place where an error becomes an exit code."""

import os
import sys

import typer

from dpdau import __version__
from dpdau.cli import (
    backups,
    card,
    consume,
    data,
    erasures,
    experiments,
    ledger,
    numbers,
    one_shot,
    plans,
    rotation,
    service,
    upkeep,
)
from dpdau.cli.frames import hide_data_frames
from dpdau.cli.plain import use_plain_words
from dpdau.cli.session import JsonOption, fail, print_json
from dpdau.errors import DpdauError

app = typer.Typer(
    name="dpdau",
    help="Differentially private daily, weekly and monthly active-user counts.",
    epilog="Exit codes: 0 done, 1 bug, 2 usage or bad input, 3 budget exhausted, 4 not ready, "
    "5 store or ledger unavailable, 6 integrity failure.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    # Plain help: the library that frames it takes longer to load than everything else.
    rich_markup_mode=None,
)
for room in (
    service,
    data,
    erasures,
    numbers,
    one_shot,
    plans,
    card,
    experiments,
    backups,
    consume,
    ledger,
    rotation,
    upkeep,
):
    room.register(app)


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"name": "dpdau", "version": __version__})
        return
    typer.echo(__version__)


def main() -> None:
    """Runs the command line and ends the process with the exit code of the contract."""
    hide_data_frames()
    use_plain_words()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        app(arguments)
    except DpdauError as error:
        return fail(error, as_json="--json" in arguments)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
