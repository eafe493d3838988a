"""Commands on month plans: what one costs, open it, see how far it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dpdau.cli.session import (
    ApiKeyOption,
    JsonOption,
    MonthArgument,
    UrlOption,
    local_app,
    print_json,
    verbs,
)
from dpdau.domain import MonthQuote, MonthStatus

if TYPE_CHECKING:
    from dpdau.app import Verbs

plan = typer.Typer(
    name="plan",
    help="One charge for every daily DAU, WAU and MAU of a calendar month.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.add_typer(plan)


@plan.command("price")
def price(
    month: MonthArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show the cost and the precision of a month, before buying; charges nothing."""
    with _verbs(url, api_key, as_json=as_json) as product:
        quote = product.price_month(month)
    show_quote(quote, as_json=as_json, buy=f"dpdau plan open {month}")


@plan.command("open")
def open_(
    month: MonthArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Open the plan of a month: one charge. Does nothing if it is open."""
    with _verbs(url, api_key, as_json=as_json) as product:
        status = product.open_month(month)
    _show(status, as_json=as_json)


@plan.command("show")
def show(
    month: MonthArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show an open plan and how far it has come."""
    with verbs(url, api_key, reported=as_json) as product:
        status = product.month(month)
    _show(status, as_json=as_json)


@plan.command("abandon")
def abandon(
    month: MonthArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")],
    as_json: JsonOption = False,
) -> None:
    """Give up the rest of a plan that cannot go on. Nothing is refunded; days can be bought."""
    with local_app(reported=as_json) as app:
        status = app.abandon_month(month, reason=reason)
    _show(status, as_json=as_json)


def show_quote(quote: MonthQuote, *, as_json: bool, buy: str) -> None:
    """What a month costs and how precise it is, and the command that buys it."""
    if as_json:
        print_json(quote.to_json())
        return
    from dpdau.cli.output import OUT, month_table

    OUT.print(month_table(quote))
    numbers = sum(len(line.half_widths_95) for line in quote.lines)
    OUT.print(
        f"One charge of ε {quote.epsilon:g} at δ {quote.delta:g} pays for all {numbers} numbers "
        f"of {quote.month}."
    )
    if quote.opened:
        OUT.print("The plan is open: the charge is made.")
    elif quote.affordable:
        # To be copied: neither broken at the width of a terminal nor read as markup.
        OUT.print(f"It fits the budget. To buy it: {buy}", soft_wrap=True, markup=False)
    else:
        OUT.print("It does NOT fit what is left of the budget.")


def _show(status: MonthStatus, *, as_json: bool) -> None:
    """A plan in words."""
    if as_json:
        print_json(status.to_json())
        return
    from dpdau.cli.output import OUT

    rows = [
        ("plan", f"{status.plan_id}, opened {status.opened_at.isoformat(timespec='seconds')}"),
        ("charge", f"ε {status.epsilon:g} at δ {status.delta:g}, once, {status.mechanism}"),
        ("segments", ", ".join(map(str, status.segments)) or "none: everyone"),
        ("days", f"{status.days_taken} of {status.days} published"),
    ]
    if status.abandoned:
        rows.append(("given up", "the other days are bought on demand"))
    if status.next_day is not None and status.next_closes_at is not None:
        closes_at = status.next_closes_at.isoformat(timespec="seconds")
        rows.append(("next", f"{status.next_day.isoformat()}, which closes at {closes_at}"))
    for name, value in rows:
        OUT.print(f"{name:9} {value}")


@contextmanager
def _verbs(url: str | None, api_key: str | None, *, as_json: bool) -> Iterator["Verbs"]:
    """The verbs, with progress on a terminal for a strategy that has to be solved."""
    from dpdau.cli.output import solving_progress

    with (
        solving_progress() as progress,
        verbs(url, api_key, reported=as_json, progress=progress) as product,
    ):
        yield product
