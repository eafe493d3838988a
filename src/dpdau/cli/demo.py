"""The first minute: real data in, real private numbers out, on the terminal."""

import datetime as dt
from typing import TYPE_CHECKING, Final

from dpdau.domain import Metric, month_of

if TYPE_CHECKING:
    from dpdau.app import App

DEMO_SOURCE: Final = "cdnow"
DEMO_MONTH_END: Final = dt.date(1997, 3, 31)
_SHOWN_DAYS: Final = 10


def show_demo(app: "App") -> None:
    """Loads the CDNOW purchase log, opens the plan of March 1997 and shows the whole month.

    One charge pays for all 93 numbers; what an earlier run released is shown again at no cost.
    """
    from dpdau.cli.data import ingest_file
    from dpdau.cli.output import OUT, answer_table, budget_table

    report = ingest_file(app, DEMO_SOURCE)
    OUT.print(
        f"CDNOW purchase log, 1997-01-01 to 1998-06-30: {report.received:,} events received, "
        f"{report.accepted:,} accepted, {report.late:,} late, "
        f"{report.duplicate:,} applied by an earlier run."
    )
    app.release(Metric.MAU, DEMO_MONTH_END)
    first = DEMO_MONTH_END.replace(day=1)
    for metric in Metric:
        answers = app.series([metric], first, DEMO_MONTH_END)
        title = f"{metric.value.upper()}, the last {_SHOWN_DAYS} of {len(answers)} days published"
        OUT.print(answer_table(answers[-_SHOWN_DAYS:], title=title))
    OUT.print(budget_table([app.budget("plan", DEMO_MONTH_END)]))
    status = app.month(month_of(DEMO_MONTH_END))
    OUT.print(
        f"One charge of ε {status.epsilon:g} at δ {status.delta:g} paid for every number of "
        f"{status.month}: {status.days_taken} days of DAU, WAU and MAU."
    )
