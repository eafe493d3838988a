"""Commands that copy what must not be lost, and put it back."""

from pathlib import Path
from typing import Annotated

import typer

from dpdau.cli.session import JsonOption, local_app, print_json, settings


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(backup)
    app.command()(restore)


def backup(
    to: Annotated[
        Path | None, typer.Option("--to", help="Target file; DATA_DIR/backups unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger while it is in use; the copy is consistent."""
    from dpdau.datadir import DataDir

    with local_app(read_only=True) as app:
        now = app.calendar.clock()
        target = to or (
            DataDir(app.settings.DATA_DIR).backups / f"ledger-{now:%Y%m%dT%H%M%SZ}.sqlite"
        )
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = app.ledger.backup(target)
    if as_json:
        print_json({"path": str(target), "entries": head.seq, "head_hash": head.hash})
        return
    typer.echo(f"{target}")


def restore(
    source: Annotated[Path, typer.Argument(help="A copy that `dpdau backup` wrote.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the ledger.")
    ] = "restored from a backup",
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check the copy; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a copy of the ledger in its place. An older copy is refused: spending is not refunded."""
    from dpdau.app import restore_ledger

    report = restore_ledger(settings(), source, reason=reason, verify_only=verify)
    if as_json:
        print_json(report.to_json())
        return
    done = "sound, and no older than the ledger was" if verify else "restored"
    typer.echo(f"{source}: {report.entries} entries, {report.releases} releases; {done}")
