"""Commands that state what was promised for a month, and check such a statement."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from dpdau.cli import completion
from dpdau.cli.session import JsonOption, local_app, print_json, settings
from dpdau.errors import (
    CardMismatchError,
    InvalidPlanError,
    NotFoundError,
    StoreUnavailableError,
    TooLargeError,
    UnsupportedMediaError,
)

card = typer.Typer(
    help="A signed one-page statement of what was promised for a published month.",
    invoke_without_command=True,
)
_KINDS: Final = (".html", ".pdf", ".json")


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.add_typer(card, name="card")


@card.callback()
def make(
    context: typer.Context,
    month: Annotated[
        str | None,
        typer.Option("--month", help="The month, YYYY-MM.", autocompletion=completion.months),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Target: .html, .pdf or .json; card-YYYY-MM.html unless given."),
    ] = None,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="Let a key take the place of the one the ledger names."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the signed statement of a month, from the ledger alone."""
    if context.invoked_subcommand is not None:
        return
    if month is None:
        raise InvalidPlanError(
            "Expected --month YYYY-MM, or one of `card verify` and `card key`, found neither."
        )
    target = out or Path(f"card-{month}.html")
    if target.suffix.lower() not in _KINDS:
        raise UnsupportedMediaError(
            f"Expected --out to end in {', '.join(_KINDS)}, found {target.name!r}."
        )
    from dpdau.app.card import issue
    from dpdau.app.card_pages import html_page, json_page, pdf_page

    with local_app(read_only=True, reported=False) as app:
        signed = issue(app, month, new_key=new_key)
    if as_json and out is None:
        typer.echo(json_page(signed), nl=False)
        return
    kind = target.suffix.lower()
    if kind == ".pdf":
        _write(target, pdf_page(signed))
    else:
        _write(target, (html_page if kind == ".html" else json_page)(signed).encode())
    if as_json:
        typer.echo(json_page(signed), nl=False)
        return
    typer.echo(f"{target}: the privacy card of {month}, signed by {signed.public_key}")
    typer.echo(f"Check it with: dpdau card verify {target} --key {signed.public_key}", err=True)


@card.command("verify")
def verify_file(
    path: Annotated[Path, typer.Argument(help="The .html, .pdf or .json file.", metavar="FILE")],
    key: Annotated[
        str | None,
        typer.Option("--key", help="The publisher's public key, from `dpdau card key`."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the signature of a card, and that its page says what was signed; needs no DATA_DIR."""
    from dpdau.app.card_pages import verify

    found = verify(_read(path))
    if key is not None and key.strip() != found.public_key:
        raise CardMismatchError(
            f"Expected a card signed by {key.strip()}, found one signed by {found.public_key}."
        )
    if as_json:
        print_json({**found.to_json(), "key_compared": key is not None})
        return
    typer.echo(f"{path}: sound; the page says what was signed, for {found.statement['month']}")
    typer.echo(f"signed by {found.public_key}")
    if key is None:
        typer.echo(
            "Whose key that is was not checked: ask the publisher for it, and pass it as --key.",
            err=True,
        )


@card.command("key")
def show_key(as_json: JsonOption = False) -> None:
    """Show the public key that signs the cards of this data directory, to be published."""
    from dpdau.app.signed_card import CardKey
    from dpdau.datadir import DataDir

    public = CardKey.open(DataDir(settings().DATA_DIR).card_key).public
    if as_json:
        print_json({"public_key": public})
        return
    typer.echo(public)


def _read(path: Path) -> bytes:
    """The bytes of a file of a card's size."""
    from dpdau.app.card_pages import CARD_SIZE_MAX

    try:
        with path.open("rb") as file:
            content = file.read(CARD_SIZE_MAX + 1)
    except OSError as error:
        raise NotFoundError(
            f"Expected a card at {path}, found none that can be read: {error.strerror}."
        ) from None
    if len(content) > CARD_SIZE_MAX:
        raise TooLargeError(f"Expected a card of at most {CARD_SIZE_MAX:,} bytes, found more.")
    return content


def _write(target: Path, content: bytes) -> None:
    """Writes the file whole, or leaves what was there."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise StoreUnavailableError(
            f"Expected {target} to be writable, found: {error.strerror}."
        ) from None
