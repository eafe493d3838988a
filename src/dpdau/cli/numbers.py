"""Commands that release, read and price numbers."""

import contextlib
import datetime as dt
import secrets
from pathlib import Path
from typing import Annotated

import typer

from dpdau.cli import completion
from dpdau.cli.session import (
    ApiKeyOption,
    FromOption,
    JsonOption,
    MetricsOption,
    MonthArgument,
    SegmentOption,
    ToOption,
    UrlOption,
    local_app,
    parse_metrics,
    parse_segment,
    print_json,
    settings,
    verbs,
)
from dpdau.domain import Metric, SeriesView, check_range, month_days, parse_day
from dpdau.errors import LedgerUnavailableError, NotFoundError

FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Buy a new release although one is stored.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the price and the precision; charge nothing.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (dau, wau, mau, growth, series, budget, exact):
        app.command()(command)
    app.command("reset-budget")(reset_budget)


def dau(
    day: Annotated[str, typer.Option("--day", help="The day, YYYY-MM-DD.")],
    segment: SegmentOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Release the users active on one day."""
    _release(
        Metric.DAU,
        day,
        window=None,
        segment=segment,
        fresh=fresh,
        dry_run=dry_run,
        as_json=as_json,
        url=url,
        api_key=api_key,
    )


def wau(
    end: Annotated[str, typer.Option("--end", help="The last of the 7 days, YYYY-MM-DD.")],
    segment: SegmentOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Release the users active in the 7 days that end at a day."""
    _release(
        Metric.WAU,
        end,
        window=None,
        segment=segment,
        fresh=fresh,
        dry_run=dry_run,
        as_json=as_json,
        url=url,
        api_key=api_key,
    )


def mau(
    end: Annotated[str, typer.Option("--end", help="The last day of the window, YYYY-MM-DD.")],
    window: Annotated[
        int | None, typer.Option("--window", help="Days, 1..64; MAU_WINDOW_DAYS unless given.")
    ] = None,
    segment: SegmentOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Release the users active in the window that ends at a day."""
    _release(
        Metric.MAU,
        end,
        window=window,
        segment=segment,
        fresh=fresh,
        dry_run=dry_run,
        as_json=as_json,
        url=url,
        api_key=api_key,
    )


def growth(
    end: Annotated[str, typer.Option("--end", help="The last day of the window, YYYY-MM-DD.")],
    window: Annotated[
        int | None, typer.Option("--window", help="Days, 1..64; MAU_WINDOW_DAYS unless given.")
    ] = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Release who is new, retained, resurrected and churned since the window before; one charge."""
    when = parse_day(end)
    with verbs(url, api_key, reported=as_json) as product:
        answer = product.growth(when, window_days=window, fresh=fresh)
    if as_json:
        print_json(answer.to_json())
        return
    from dpdau.cli.output import OUT, growth_table

    OUT.print(growth_table(answer))
    how = "stored before, nothing charged" if answer.replayed else "charged once for all"
    OUT.print(
        f"{how}; {answer.budget.epsilon_remaining:.4g} of ε {answer.budget.epsilon_cap:g} left in "
        f"the {answer.budget.metric} budget of {answer.budget.period}"
    )


def series(
    first: FromOption,
    last: ToOption,
    metrics: MetricsOption = "dau,wau,mau",
    segment: SegmentOption = None,
    view: Annotated[
        SeriesView, typer.Option("--view", help="As released, or a view of it; neither spends.")
    ] = SeriesView.RAW,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw it, with its 95 % bands, in place of a table.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show what is released already; never spends."""
    with verbs(url, api_key, reported=as_json) as product:
        answers = product.series(
            parse_metrics(metrics),
            parse_day(first),
            parse_day(last),
            segment=parse_segment(segment),
            view=view,
        )
    if as_json:
        print_json([one.to_json() for one in answers])
        return
    from dpdau.cli.output import OUT, answer_table, print_chart

    if not answers:
        OUT.print("Nothing is released in that range.")
    elif plot:
        print_chart(answers)
    else:
        OUT.print(answer_table(answers))


def budget(
    metric: Annotated[
        str,
        typer.Argument(
            help="dau, wau, mau, plan or live; `all` shows each.",
            autocompletion=completion.budgets,
        ),
    ],
    day: Annotated[
        str | None, typer.Option("--day", help="A day of the month; today unless given.")
    ] = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Also write reports/budget-snapshot.json.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show what a month's budget holds and what was spent."""
    when = None if day is None else parse_day(day)
    names = ["plan", *(one.value for one in Metric)] if metric == "all" else [metric]
    with verbs(url, api_key) as product:
        blocks = [product.budget(name, when) for name in names]
        if metric == "all":
            with contextlib.suppress(NotFoundError):
                blocks.append(product.budget("live", when))
    bodies = [block.to_json() for block in blocks]
    if snapshot:
        _write_snapshot(bodies)
    if as_json:
        print_json(bodies if metric == "all" else bodies[0])
        return
    from dpdau.cli.output import OUT, budget_table

    OUT.print(budget_table(blocks))


def reset_budget(
    metric: Annotated[
        str,
        typer.Argument(help="dau, wau, mau, plan or live.", autocompletion=completion.budgets),
    ],
    month: MonthArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")],
    grant_id: Annotated[
        str,
        typer.Option("--grant-id", help="A name of your own: a second grant with it adds nothing."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Grant a month one more allowance. Spending is never erased: the total stays visible."""
    when = month_days(month)[0]
    with local_app(read_only=True) as app:
        grant_id = grant_id or secrets.token_hex(16)
        try:
            block = app.grant(metric, when, reason=reason, grant_id=grant_id)
        except LedgerUnavailableError as error:
            raise LedgerUnavailableError(
                f"{error.message} Whether it was granted is not known: repeat the command with "
                f"--grant-id {grant_id}, and it is granted once."
            ) from error
    if as_json:
        print_json(block.to_json())
        return
    from dpdau.cli.output import ERR, OUT, budget_table

    ERR.print("A grant weakens the guarantee of that month: the cap shown below is what now holds.")
    OUT.print(budget_table([block]))


def exact(
    first: FromOption,
    last: ToOption,
    metrics: MetricsOption = "dau,wau,mau",
    window: Annotated[
        int | None, typer.Option("--window", help="Days of the mau window, 1..64.")
    ] = None,
    segment: SegmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print exact counts. They are private: this is recorded in the audit log."""
    from dpdau.cli.output import ERR
    from dpdau.plan import own_windows

    named = parse_segment(segment)
    windows = own_windows(settings().MAU_WINDOW_DAYS if window is None else window)
    asked = {metric: windows[metric] for metric in parse_metrics(metrics)}
    start = parse_day(first)
    with local_app(read_only=True) as app:
        check_range(start, parse_day(last))
        ERR.print("Warning: exact counts are private; do not publish them. This read is recorded.")
        table = app.exact(asked, start, parse_day(last), segment=named, reason="command line")
    rows = [
        {
            "metric": metric.value,
            "day": (start + dt.timedelta(days=index)).isoformat(),
            "window_days": asked[metric],
            "segment": None if named is None else str(named),
            "exact": int(value),
        }
        for metric, values in table.items()
        for index, value in enumerate(values)
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['metric']}  {row['day']}  {row['exact']}")


def _release(
    metric: Metric,
    day: str,
    *,
    window: int | None,
    segment: str | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    url: str | None,
    api_key: str | None,
) -> None:
    """The shared body of dau, wau and mau."""
    when, named = parse_day(day), parse_segment(segment)
    with verbs(url, api_key, reported=as_json) as product:
        if dry_run:
            quote = product.price(metric, when, window_days=window, segment=named, fresh=fresh)
            _show_quote(quote.to_json(), as_json)
            return
        answer = product.release(metric, when, window_days=window, segment=named, fresh=fresh)
    if as_json:
        print_json(answer.to_json())
        return
    from dpdau.cli.output import OUT, answer_table

    OUT.print(answer_table([answer]))
    how = "stored before, nothing charged" if answer.replayed else "charged"
    OUT.print(
        f"{how}; {answer.budget.epsilon_remaining:.4g} of ε {answer.budget.epsilon_cap:g} left in "
        f"{answer.budget.period}; id {answer.release.release_id}"
    )


def _show_quote(body: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    afford = "fits the budget" if body["affordable"] else "does NOT fit the budget"
    typer.echo(
        f"{body['metric']} {body['day']} ({body['window_days']} days): ± {body['half_width_95']} "
        f"users at 95 %, ε {body['epsilon']}, δ {body['delta']}; {afford}"
    )


def _write_snapshot(bodies: list[dict[str, object]]) -> None:
    import json

    from dpdau.datadir import DataDir

    folder: Path = DataDir(settings().DATA_DIR).create().reports
    target = folder / "budget-snapshot.json"
    target.touch(mode=0o600)
    target.write_text(json.dumps(bodies, indent=2) + "\n", "utf-8")
