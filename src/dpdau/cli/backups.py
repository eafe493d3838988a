"""Commands that copy what must not be lost, and put it back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpdau.cli.session import JsonOption, local_app, print_json, settings
from dpdau.errors import InvalidPlanError, InvalidSettingError

if TYPE_CHECKING:
    from dpdau.app import App
    from dpdau.app.restoring import RestoreReport
    from dpdau.datadir import DataDir
    from dpdau.settings import Settings

PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase; BACKUP_PASSPHRASE unless."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(backup)
    app.command()(restore)


def backup(
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Target file, or folder with --all; a new one."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", help="Folder in which it gets a name of its own; DATA_DIR/backups unless."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Copy ledger, activity and keyring into a folder.")
    ] = False,
    encrypt: Annotated[
        bool,
        typer.Option("--encrypt", help="Make one encrypted file, under BACKUP_PASSPHRASE."),
    ] = False,
    passphrase_file: PassphraseOption = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, help="Then keep the newest N of its kind; delete the rest."),
    ] = None,
    keep_days: Annotated[
        int | None,
        typer.Option("--keep-days", min=0, help="Then delete those of its kind that are older."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger, or everything, while it is in use; the copy is consistent.

    With --keep or --keep-days the new copy is verified first, as `restore --verify` does by itself;
    nothing is deleted where it is not sound, and it is never deleted itself.
    """
    from dpdau.app.backups import passphrase_of
    from dpdau.app.kept import EVERYTHING, LEDGER_ALONE, Rule, name_of
    from dpdau.datadir import DataDir

    is_pruned = keep is not None or keep_days is not None
    if to is not None and (into is not None or is_pruned):
        raise InvalidPlanError("Expected --into, and not --to, with --keep, --keep-days or a name.")
    with local_app(read_only=True, reported=False) as app:
        folder, now = DataDir(app.settings.DATA_DIR), app.calendar.clock()
        kind, passphrase = EVERYTHING if everything else LEDGER_ALONE, None
        if encrypt or passphrase_file is not None:
            passphrase = passphrase_of(app.settings, passphrase_file)
            if passphrase is None:
                raise InvalidSettingError(
                    "Expected BACKUP_PASSPHRASE or --passphrase-file with --encrypt, found none."
                )
        named = name_of(kind, now, encrypted=passphrase is not None)
        target = to or (into or folder.backups) / named
        copied = _copy_all if everything else _copy_ledger
        shown, line = copied(app, folder, target, passphrase)
        gone: list[Path] = []
        if is_pruned:
            _verify(app.settings, folder, target, passphrase)
            gone = Rule(keep, keep_days).prune(target, now=now)
    if as_json:
        print_json({**shown, "deleted": [str(one) for one in gone]})
        return
    typer.echo(line)
    for one in gone:
        typer.echo(f"{one}: deleted", err=True)


def _copy_ledger(
    app: "App", folder: "DataDir", target: Path, passphrase: bytes | None
) -> tuple[dict[str, Any], str]:
    """Copies the ledger alone; what to print as JSON, and as a line."""
    from dpdau.app.backups import back_up_ledger

    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    head = back_up_ledger(folder, app.ledger, target, passphrase=passphrase)
    shown = {"path": str(target), "entries": head.seq, "head_hash": head.hash}
    return shown, str(target)


def _copy_all(
    app: "App", folder: "DataDir", target: Path, passphrase: bytes | None
) -> tuple[dict[str, Any], str]:
    """Copies everything, with a bar on a terminal; what to print as JSON, and as a line."""
    from dpdau.app import back_up
    from dpdau.app.spark import refuse_with_lake
    from dpdau.cli.output import copy_progress

    refuse_with_lake(
        app.settings,
        "--all",
        "Copy DATA_DIR and LAKE_DIR together while nothing runs; without --all, `dpdau"
        " backup` copies the ledger.",
    )
    with copy_progress("Copying the activity store") as moved:
        report = back_up(
            folder,
            app.ledger,
            target,
            clock=app.calendar.clock,
            passphrase=passphrase,
            moved=moved,
        )
    return report.to_json(), f"{target}: {report.files} files, {report.bytes:,} bytes"


def _verify(loaded: "Settings", folder: "DataDir", target: Path, passphrase: bytes | None) -> None:
    """Reads a backup that was just made as a restore would.

    Raises:
        IntegrityError: It is not sound.
    """
    from dpdau.app.backups import check, check_ledger, opened

    with opened(folder, target, passphrase) as plain:
        if plain.is_dir():
            check(loaded, folder, plain)
        else:
            check_ledger(folder, plain)


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
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a copy in its place. An older ledger is refused: spending is not refunded."""
    from dpdau.app import restore_all, restore_ledger
    from dpdau.app.backups import opened, passphrase_of
    from dpdau.datadir import DataDir

    loaded = settings()
    folder = DataDir(loaded.DATA_DIR).create()
    with opened(folder, source, passphrase_of(loaded, passphrase_file)) as plain:
        if plain.is_dir():
            restored = restore_all(
                loaded, plain, reason=reason, verify_only=verify, accept_older=accept_older
            )
            _show_restored(source, restored, verify=verify, as_json=as_json)
            return
        report = restore_ledger(loaded, plain, reason=reason, verify_only=verify)
    if as_json:
        print_json(report.to_json())
        return
    done = "sound, and no older than the ledger was" if verify else "restored"
    typer.echo(f"{source}: {report.entries} entries, {report.releases} releases; {done}")


def _show_restored(source: Path, report: "RestoreReport", *, verify: bool, as_json: bool) -> None:
    """Says what was brought back, or would be, and what is lost by it."""
    if as_json:
        body = report.to_json()
        print_json({**body, "backup": {**body["backup"], "path": str(source)}})
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
