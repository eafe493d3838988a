"""What was spent and said: append-only, chained, the only spender.

A name is imported when it is first asked for: `peek` answers before the database library is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dpdau.ledger.audit import AuditReport, Finding
    from dpdau.ledger.budgets import BudgetState, budget_id_of
    from dpdau.ledger.canonical import release_from_json, release_to_json
    from dpdau.ledger.chain import Head
    from dpdau.ledger.keys import ApiKeys, KeyInfo
    from dpdau.ledger.ledger import Ledger
    from dpdau.ledger.log import AuditEvent
    from dpdau.ledger.schema import PendingRevision
    from dpdau.ledger.steps import OpenRequest, StepRequest, StoredPlan
    from dpdau.ledger.upkeep import migrate, restore

__all__ = [
    "ApiKeys",
    "AuditEvent",
    "AuditReport",
    "BudgetState",
    "Finding",
    "Head",
    "KeyInfo",
    "Ledger",
    "OpenRequest",
    "PendingRevision",
    "StepRequest",
    "StoredPlan",
    "budget_id_of",
    "migrate",
    "release_from_json",
    "release_to_json",
    "restore",
]

_HOMES: Final = {
    "ApiKeys": "keys",
    "AuditEvent": "log",
    "AuditReport": "audit",
    "BudgetState": "budgets",
    "Finding": "audit",
    "Head": "chain",
    "KeyInfo": "keys",
    "OpenRequest": "steps",
    "PendingRevision": "schema",
    "StepRequest": "steps",
    "StoredPlan": "steps",
    "budget_id_of": "budgets",
    "migrate": "upkeep",
    "release_from_json": "canonical",
    "release_to_json": "canonical",
    "restore": "upkeep",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'ledger')}"), name)
