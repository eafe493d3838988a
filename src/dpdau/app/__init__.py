"""Wiring, and the verbs of the product: `ingest`, `price`, `release`, `budget`, `erase`.

`Verbs` is what every front speaks to. It has two implementations, `App` here and `client.Client`
over HTTP, and a front cannot tell which it has. A name is imported when it is first asked for, so
that a command waits for no more than it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dpdau.app.backups import back_up
    from dpdau.app.creation import create
    from dpdau.app.product import App
    from dpdau.app.restoring import restore_all
    from dpdau.app.rules import ingest_rules, system_clock
    from dpdau.app.verbs import Verbs
    from dpdau.app.wiring import (
        checked_terms,
        copy_ledger,
        migrate_ledger,
        restore_ledger,
        secret_of,
    )

__all__ = [
    "App",
    "Verbs",
    "back_up",
    "checked_terms",
    "copy_ledger",
    "create",
    "ingest_rules",
    "migrate_ledger",
    "restore_all",
    "restore_ledger",
    "secret_of",
    "system_clock",
]

_HOMES: Final = {
    "App": "product",
    "Verbs": "verbs",
    "back_up": "backups",
    "create": "creation",
    "ingest_rules": "rules",
    "restore_all": "restoring",
    "system_clock": "rules",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'wiring')}"), name)
