"""Commands for the ledger as a whole."""

from typing import Annotated

import typer

from dpdau.cli.session import JsonOption, print_json, settings

ledger = typer.Typer(help="The ledger as a whole: copy it elsewhere.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    ledger.command("copy")(copy)
    app.add_typer(ledger, name="ledger")


def copy(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="URL of an empty database, postgresql+psycopg://…, or of a new file, "
            "sqlite:///PATH. A password is best left to PGPASSWORD or ~/.pgpass.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger into another database, and verify the hash chain of the copy.

    Nobody can write meanwhile. Stop the service first, and point SERVICE_DATABASE_URL at the copy
    afterwards.
    """
    from dpdau.app import copy_ledger
    from dpdau.cli.output import copy_progress

    with copy_progress("Copying the ledger", of_bytes=False) as moved:
        report = copy_ledger(settings(), to, moved=moved)
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(
        f"{report.entries} entries, {report.charges} charges, {report.releases} releases copied "
        f"and verified; head {report.head_hash[:16]}"
    )
