"""What a shell offers for the value of an option; asked for on a press of Tab alone.

Nothing here opens a data directory or says what is in one.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final

from dpdau.domain import Metric, Scope, month_of

MONTHS_OFFERED: Final = 13


def metrics(incomplete: str) -> list[str]:
    """Metrics after those that are there already, with commas between."""
    done = incomplete.split(",")[:-1]
    stem = "".join(f"{one}," for one in done)
    return _beginning(incomplete, (f"{stem}{one}" for one in Metric if one not in done))


def budgets(incomplete: str) -> list[str]:
    """Budgets by name, and all of them."""
    return _beginning(incomplete, ("plan", *Metric, "live", "all"))


def months(incomplete: str) -> list[str]:
    """The current month and those before it."""
    from dpdau.app import system_clock

    first = system_clock().date().replace(day=1)
    found = []
    for _ in range(MONTHS_OFFERED):
        found.append(month_of(first))
        first = (first - dt.timedelta(days=1)).replace(day=1)
    return _beginning(incomplete, found)


def segments(incomplete: str) -> list[str]:
    """Declared dimensions; their values are private."""
    from dpdau.errors import DpdauError
    from dpdau.settings import load

    try:
        return _beginning(incomplete, (f"{one}=" for one in load().DIMENSIONS))
    except DpdauError:
        return []


def scopes(incomplete: str) -> list[str]:
    """What a key may do."""
    return _beginning(incomplete, Scope)


def checks(incomplete: str) -> list[str]:
    """The checks of `dpdau doctor`."""
    from dpdau.cli.checks import CHECKS

    return _beginning(incomplete, CHECKS)


def formats(incomplete: str) -> list[str]:
    """Formats of event files."""
    return _beginning(incomplete, ("ndjson", "csv", "parquet"))


def patterns(incomplete: str) -> list[str]:
    """Patterns of removal in synthetic data."""
    return _beginning(incomplete, ("random", "top", "end", "flip", "adversarial"))


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [str(word) for word in words if str(word).startswith(incomplete)]
