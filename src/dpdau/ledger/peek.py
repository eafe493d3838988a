"""A look into the ledger's file that costs nothing, for whoever can do something useful meanwhile.

It decides nothing: what may be released is for `Ledger` to say, in a transaction.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_FILE_URL: Final = "sqlite:///"


def may_have_plan(url: str, plan_id: str) -> bool:
    """Whether a ledger may have a plan: False only where it is certain that it has none now.

    Args:
        url: The ledger.
        plan_id: The plan.
    """
    if not url.startswith(_FILE_URL) or "?" in url:
        return True
    path = Path(url.removeprefix(_FILE_URL))
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as ledger:
            statement = "select 1 from plans where plan_id = ?"
            return ledger.execute(statement, (plan_id,)).fetchone() is not None
    except sqlite3.Error:
        return True
