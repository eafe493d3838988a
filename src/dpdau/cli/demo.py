"""The first minute: real data in, real private numbers out, on the terminal."""

import datetime as dt
from typing import TYPE_CHECKING, Final

from dpdau.domain import Metric, month_days, month_of

if TYPE_CHECKING:
    from dpdau.app import App

DEMO_SOURCE: Final = "cdnow"
DEMO_MONTHS: Final = tuple(f"1997-{month:02d}" for month in range(1, 7))
DEMO_LAST: Final = dt.date(1997, 6, 30)


def show_demo(app: "App") -> None:
    """Loads the CDNOW purchase log, publishes half a year under month plans, and draws it.

    One charge pays for all numbers of a month; what an earlier run released is shown again at no
    cost.
    """
    from dpdau.cli.data import ingest_file
    from dpdau.cli.output import OUT, budget_table, print_chart

    report = ingest_file(app, DEMO_SOURCE)
    OUT.print(
        f"CDNOW purchase log, 1997-01-01 to 1998-06-30: {report.received:,} events received, "
        f"{report.accepted:,} accepted, {report.late:,} late, "
        f"{report.duplicate:,} applied by an earlier run."
    )
    for month in DEMO_MONTHS:
        app.release(Metric.MAU, month_days(month)[1])
    first = month_days(DEMO_MONTHS[0])[0]
    answers = app.series(list(Metric), first, DEMO_LAST)
    print_chart(answers)
    OUT.print(budget_table([app.budget("plan", DEMO_LAST)]))
    status = app.month(month_of(DEMO_LAST))
    OUT.print(
        f"One charge of ε {status.epsilon:g} at δ {status.delta:g} paid for every number of a "
        f"month. Published: {len(answers)} numbers of {len(DEMO_MONTHS)} months."
    )
