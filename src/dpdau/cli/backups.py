"""Commands that copy what must not be lost, and put it back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpdau.cli.session import JsonOption, local_app, print_json, settings

if TYPE_CHECKING:
    from dpdau.app import App


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(backup)
    app.command()(restore)


def backup(
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Target file, or folder with --all; in DATA_DIR/backups unless."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Copy ledger, activity and keyring into a folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger, or everything, while it is in use; the copy is consistent."""
    from dpdau.datadir import DataDir

    with local_app(read_only=True, reported=False) as app:
        backups = DataDir(app.settings.DATA_DIR).backups
        now = f"{app.calendar.clock():%Y%m%dT%H%M%SZ}"
        if everything:
            from dpdau.app.spark import refuse_with_lake

            refuse_with_lake(
                app.settings,
                "--all",
                "Copy DATA_DIR and LAKE_DIR together while nothing runs; without --all, `dpdau"
                " backup` copies the ledger.",
            )
            _backup_all(app, to or backups / f"all-{now}", as_json=as_json)
            return
        target = to or backups / f"ledger-{now}.sqlite"
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = app.ledger.backup(target)
    if as_json:
        print_json({"path": str(target), "entries": head.seq, "head_hash": head.hash})
        return
    typer.echo(f"{target}")


def _backup_all(app: "App", target: Path, *, as_json: bool) -> None:
    """Copies everything, with a bar on a terminal."""
    from dpdau.app import back_up
    from dpdau.cli.output import copy_progress
    from dpdau.datadir import DataDir

    folder = DataDir(app.settings.DATA_DIR)
    with copy_progress("Copying the activity store") as moved:
        report = back_up(folder, app.ledger, target, clock=app.calendar.clock, moved=moved)
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(f"{target}: {report.files} files, {report.bytes:,} bytes")


def restore(
    source: Annotated[
        Path, typer.Argument(help="What `dpdau backup` wrote: a file, or a folder with --all.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the ledger.")
    ] = "restored from a backup",
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check the copy; change nothing.")
    ] = False,
    accept_older: Annotated[
        bool,
        typer.Option(
            "--accept-older-activity",
            help="Bring a folder back although events and erasures since then are lost.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a copy in its place. An older ledger is refused: spending is not refunded."""
    if source.is_dir():
        _restore_all(source, reason, verify=verify, accept_older=accept_older, as_json=as_json)
        return
    from dpdau.app import restore_ledger

    report = restore_ledger(settings(), source, reason=reason, verify_only=verify)
    if as_json:
        print_json(report.to_json())
        return
    done = "sound, and no older than the ledger was" if verify else "restored"
    typer.echo(f"{source}: {report.entries} entries, {report.releases} releases; {done}")


def _restore_all(
    source: Path, reason: str, *, verify: bool, accept_older: bool, as_json: bool
) -> None:
    """Brings back, or checks, a folder with everything, and says what is lost by it."""
    from dpdau.app import restore_all

    report = restore_all(
        settings(), source, reason=reason, verify_only=verify, accept_older=accept_older
    )
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(
        f"{source}: {report.backup.files} files of {report.backup.made_at.isoformat()}; "
        f"{'sound' if verify else 'restored'}"
    )
    if not report.unchanged:
        typer.echo(
            f"It is older than what happened here: {report.entries_since} entries of the ledger "
            "are newer. Events after it are not in it: send them again."
            if report.keeps_ledger
            else "Nothing here shows what happened after it: events and erasures since are not in "
            "it. Send and repeat them."
        )
    for erasure_id in report.erasures_since:
        typer.echo(f"Erase again: the user of erasure {erasure_id} is in it.")
    if report.reads_again:
        typer.echo(
            "Events are read again from Kafka, also of users who were erased since: first "
            "`dpdau consume --until-end`, then erase again."
        )
    for month in report.abandoned:
        typer.echo(f"Given up: the plan of {month}; buy its other days on demand.")
