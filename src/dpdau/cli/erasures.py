"""Commands that take people out."""

from typing import Annotated

import typer

from dpdau.cli.session import ApiKeyOption, JsonOption, UrlOption, print_json, verbs


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(erase)


def erase(
    user: Annotated[str, typer.Argument(help="The user id, as it is in the events.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Take out everything of one user, under every live key. What was published stays."""
    with verbs(url, api_key, reported=False) as product:
        receipt = product.erase(user)
    if as_json:
        print_json(receipt.to_json())
        return
    typer.echo(
        f"erased: {receipt.days_touched} days touched, done at {receipt.done_at.isoformat()}, "
        f"receipt {receipt.erasure_id}"
    )
