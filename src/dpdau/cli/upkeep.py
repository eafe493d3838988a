"""Commands that look after a deployment: keys, audit, migration, settings."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dpdau.cli import completion
from dpdau.cli.session import JsonOption, local_app, print_json, settings
from dpdau.domain import parse_day

if TYPE_CHECKING:
    from dpdau.app import App
    from dpdau.ledger.log import AuditEvent

keys = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)
config = typer.Typer(help="Settings.", no_args_is_help=True)
OVERLAP_HOURS: Final = 24.0
"""How long a key that is replaced stays valid unless told otherwise."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (audit, migrate):
        app.command()(command)
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate_key)
    keys.command("revoke")(revoke_key)
    config.command("show")(show_config)
    app.add_typer(keys, name="keys")
    app.add_typer(config, name="config")


def audit(
    since: Annotated[
        str | None, typer.Option("--since", help="Also list the audit log from this day on.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            help="With --since, list these alone: exact, erasure, grant, plan, key, pseudonym-key, "
            "backup, restore or card; repeat for more.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the ledger: the chain, each charge with its release, each cap, the mark."""
    from dpdau.errors import LedgerCorruptError

    start = None if since is None else _midnight(parse_day(since))
    kinds = _kinds(kind or [], listing=start is not None)
    with local_app(read_only=True) as app:
        report = app.ledger.verify()
        log = [] if start is None else list(_log(app, start))
    log = [one for one in log if not kinds or one.kind in kinds]
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


def _kinds(names: list[str], *, listing: bool) -> frozenset[str]:
    """The kinds of events to list; none where none is named, and all are."""
    from dpdau.errors import InvalidPlanError
    from dpdau.ledger.log import KIND_OF_ACTION

    known = frozenset(KIND_OF_ACTION.values())
    if names and not listing:
        raise InvalidPlanError("Expected --since with --kind: it says from which day on to list.")
    if unknown := sorted(set(names) - known):
        raise InvalidPlanError(
            f"Expected --kind of {', '.join(sorted(known))}, found {', '.join(unknown)}."
        )
    return frozenset(names)


def _log(app: "App", start: dt.datetime) -> "Iterator[AuditEvent]":
    """The whole audit log from an instant on, page by page."""
    after = 0
    while page := app.ledger.audit_log(start, after=after):
        yield from page
        after = page[-1].seq


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
        typer.Option(
            "--scope",
            help="ingest, read, release, erase or admin; repeat for more.",
            autocompletion=completion.scopes,
        ),
    ],
    label: Annotated[str, typer.Option("--label", help="What the key is for.")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="Day on which it stops, YYYY-MM-DD.")
    ] = None,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            "--rate-limit",
            help="What it may ask, as 100/second or 5000/day; without, the limit of the service.",
        ),
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
        key_id, secret = app.ledger.keys.create(label, scopes, ends, rate_limit=rate_limit)
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
        ends = f"until {_minute(key.expires_at)}" if key.expires_at else "never expires"
        parts = [
            key.key_id,
            ",".join(sorted(key.scopes)),
            "revoked" if key.revoked_at else ends,
            f"used {_minute(key.last_used)}" if key.last_used else "not used",
        ]
        parts += [] if key.rate_limit is None else [key.rate_limit]
        parts += [] if key.replaced_by is None else [f"replaced by {key.replaced_by}"]
        typer.echo("  ".join([*parts, key.label]))


def rotate_key(
    key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")],
    overlap_hours: Annotated[
        float,
        typer.Option(
            "--overlap-hours", min=0, help="How long the old key stays valid beside the new one."
        ),
    ] = OVERLAP_HOURS,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            help="Day on which the new key stops; without, it lives as long as the old one was to.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the key that takes the place of another, with its label, scopes and limit.

    The new key is valid at once and shown once; the old one stays valid until the overlap ends.
    """
    ends = None if expires is None else _midnight(parse_day(expires))
    overlap = dt.timedelta(hours=overlap_hours)
    with local_app(read_only=True) as app:
        old, new, secret = app.ledger.keys.rotate(key_id, overlap=overlap, expires_at=ends)
    assert old.expires_at is not None, "a key that was replaced ends"
    if as_json:
        body = {"key_id": new.key_id, "api_key": secret, "scopes": sorted(new.scopes)}
        print_json({**body, "replaces": key_id, "replaced_until": old.expires_at.isoformat()})
        return
    typer.echo(secret)
    typer.echo(f"{new.key_id}: shown this once; keep it safe", err=True)
    typer.echo(f"{key_id}: valid until {_minute(old.expires_at)}", err=True)


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


def _minute(instant: dt.datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%MZ}"


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
