"""Wiring, and the verbs of the product: `ingest`, `price`, `release`, `budget`, `erase`.

`Verbs` is what every front speaks to. It has two implementations, `App` here and `client.Client`
over HTTP, and a front cannot tell which it has.
"""

from dpdau.app.creation import create
from dpdau.app.product import App
from dpdau.app.verbs import Verbs
from dpdau.app.wiring import (
    checked_terms,
    ingest_rules,
    migrate_ledger,
    restore_ledger,
    secret_of,
    system_clock,
)

__all__ = [
    "App",
    "Verbs",
    "checked_terms",
    "create",
    "ingest_rules",
    "migrate_ledger",
    "restore_ledger",
    "secret_of",
    "system_clock",
]
