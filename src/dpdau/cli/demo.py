"""The first minute: real data in, real private numbers out, on the terminal."""

import datetime as dt
from typing import TYPE_CHECKING, Final

from dpdau.domain import Answer, Metric
from dpdau.errors import BudgetExhaustedError

if TYPE_CHECKING:
    from dpdau.app import App

DEMO_SOURCE: Final = "cdnow"
DEMO_MONTH_END: Final = dt.date(1997, 3, 31)
_SHOWN_DAYS: Final = 10
_FIRST_DAY: Final = {
    Metric.DAU: DEMO_MONTH_END - dt.timedelta(days=_SHOWN_DAYS - 1),
    Metric.WAU: DEMO_MONTH_END.replace(day=1),
    Metric.MAU: DEMO_MONTH_END.replace(day=1),
}


def show_demo(app: "App") -> None:
    """Loads the CDNOW purchase log and shows DAU, WAU and MAU of March 1997.

    On demand, a month's budget pays for ten DAU releases, and for one WAU and one MAU on each day;
    what was released by an earlier run is shown again at no cost.
    """
    from dpdau.cli.data import ingest_file
    from dpdau.cli.output import OUT, answer_table, budget_table

    report = ingest_file(app, DEMO_SOURCE)
    OUT.print(
        f"CDNOW purchase log, 1997-01-01 to 1998-06-30: {report.received:,} events received, "
        f"{report.accepted:,} accepted, {report.late:,} late, "
        f"{report.duplicate:,} applied by an earlier run."
    )
    for metric, first in _FIRST_DAY.items():
        answers = _release_days(app, metric, first)
        OUT.print(
            answer_table(
                answers[-_SHOWN_DAYS:], title=f"{metric.value.upper()}, the last days of March 1997"
            )
        )
    OUT.print(budget_table([app.budget(metric.value, DEMO_MONTH_END) for metric in Metric]))


def _release_days(app: "App", metric: Metric, first: dt.date) -> list[Answer]:
    """The releases of each day up to the end of the month, newest first in the spending order."""
    answers: list[Answer] = []
    for back in range((DEMO_MONTH_END - first).days + 1):
        try:
            answers.append(app.release(metric, DEMO_MONTH_END - dt.timedelta(days=back)))
        except BudgetExhaustedError:
            break
    return answers[::-1]
