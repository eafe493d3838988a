"""The command that replaces the pseudonym key ahead of time."""

from typing import Annotated

import typer

from dpdau.cli.session import JsonOption, local_app, print_json
from dpdau.domain import parse_day
from dpdau.errors import DataDirInUseError


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("rotate-salt")(rotate_salt)


def rotate_salt(
    effective: Annotated[
        str, typer.Argument(help="Day of arrival from which the new key is used, YYYY-MM-DD.")
    ],
    rotation_days: Annotated[
        int | None,
        typer.Option(
            "--rotation-days",
            help="Days after which the new key is replaced in turn; else HASH_SALT_ROTATION_DAYS.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the pseudonym key on a day: today, or before it is replaced by itself."""
    day = parse_day(effective)
    try:
        with local_app(alone=True, reported=False) as app:
            change = app.keys.plan(day, rotation_days=rotation_days)
    except DataDirInUseError as error:
        url = error.facts["url"]
        if url is None:
            raise
        raise DataDirInUseError(
            f"Expected DATA_DIR for this command alone, found the service at {url}, which replaces "
            "the key by itself after HASH_SALT_ROTATION_DAYS; stop it to have it done sooner.",
            url=url,
        ) from None
    if as_json:
        print_json(change.to_json())
        return
    hashes = f"each user id is hashed under {change.live_keys} keys"
    typer.echo(f"key {change.epoch_id} is used from {change.effective} on, by day of arrival")
    typer.echo(f"until {change.older_until} the keys before it stay; {hashes}, and rows move")
    typer.echo(f"from {change.older_until} on, events before {change.first_day} are refused")
    typer.echo(f"key {change.epoch_id} is replaced in turn on {change.next_rotation}")
