"""Commands that look after a deployment: keys, audit, migration, settings."""

import datetime as dt
import json
from typing import Annotated

import typer

from dpdau.cli.session import JsonOption, local_app, print_json, settings
from dpdau.domain import parse_day

keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
config = typer.Typer(help="Settings.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (audit, migrate):
        app.command()(command)
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke_key)
    config.command("show")(show_config)
    app.add_typer(keys, name="keys")
    app.add_typer(config, name="config")


def audit(
    since: Annotated[
        str | None, typer.Option("--since", help="Also list the audit log from this day on.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the ledger: the chain, each charge with its release, each cap, the mark."""
    from dpdau.errors import LedgerCorruptError

    with local_app(read_only=True) as app:
        report = app.ledger.verify()
        start = None if since is None else parse_day(since)
        log = () if start is None else app.ledger.audit_log(_midnight(start))
    if as_json:
        print_json({**report.to_json(), "log": [entry.to_json() for entry in log]})
    else:
        for entry in log:
            facts = json.dumps(dict(entry.facts), ensure_ascii=False)
            typer.echo(f"{entry.at.isoformat()}  {entry.actor}  {entry.action}  {facts}")
        typer.echo(
            f"{report.entries} entries, {report.charges} charges, {report.releases} releases; "
            f"head {report.head_hash[:16]}"
        )
    if not report.ok:
        raise LedgerCorruptError(
            "; ".join(finding.message for finding in report.findings), findings=report.finding_count
        )
    if not as_json:
        typer.echo("ledger verified: nothing was changed, removed or left uncharged")


def migrate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run; change nothing.")
    ] = False,
) -> None:
    """Bring the ledger's tables up to this version."""
    from dpdau.app import migrate_ledger

    steps = migrate_ledger(settings(), dry_run=dry_run)
    for step in steps:
        typer.echo(step)
    typer.echo("dry run: nothing was changed" if dry_run and steps else "the ledger is up to date")


def create_key(
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="ingest, read, release, erase or admin; repeat for more."),
    ],
    label: Annotated[str, typer.Option("--label", help="What the key is for.")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="Day on which it stops, YYYY-MM-DD.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown once and stored as a hash."""
    from dpdau.domain import Scope
    from dpdau.errors import InvalidPlanError

    try:
        scopes = frozenset(Scope(one) for one in scope)
    except ValueError:
        known = ", ".join(Scope)
        raise InvalidPlanError(f"Expected scopes of {known}, found {', '.join(scope)}.") from None
    ends = None if expires is None else _midnight(parse_day(expires))
    with local_app(read_only=True) as app:
        key_id, secret = app.ledger.keys.create(label, scopes, ends)
    if as_json:
        print_json({"key_id": key_id, "api_key": secret, "scopes": sorted(scopes)})
        return
    typer.echo(secret)
    typer.echo(f"{key_id}: shown this once; keep it safe", err=True)


def list_keys(as_json: JsonOption = False) -> None:
    """List the API keys; never their secrets."""
    with local_app(read_only=True) as app:
        known = app.ledger.keys.list()
    if as_json:
        print_json([key.to_json() for key in known])
        return
    for key in known:
        ends = key.expires_at.date().isoformat() if key.expires_at else "never expires"
        state = "revoked" if key.revoked_at else ends
        typer.echo(f"{key.key_id}  {','.join(sorted(key.scopes))}  {state}  {key.label}")


def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")],
    as_json: JsonOption = False,
) -> None:
    """Stop an API key from now on."""
    with local_app(read_only=True) as app:
        revoked = app.ledger.keys.revoke(key_id, actor="operator")
    if as_json:
        print_json(revoked.to_json())
        return
    typer.echo(f"{key_id}: revoked")


def show_config(as_json: JsonOption = False) -> None:
    """Show each setting, its value (secrets hidden) and where it came from."""
    from dpdau.settings import rows

    table = rows(settings())
    if as_json:
        print_json([row.model_dump() for row in table])
        return
    from rich.table import Table

    from dpdau.cli.output import OUT

    shown = Table("setting", "value", "from", "what it is")
    for row in table:
        shown.add_row(row.name, row.value, row.source, row.description)
    OUT.print(shown)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
