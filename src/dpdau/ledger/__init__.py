"""What was spent and said: append-only, chained, the only spender."""

from dpdau.ledger.audit import AuditReport, Finding
from dpdau.ledger.budgets import BudgetState, budget_id_of
from dpdau.ledger.canonical import release_from_json, release_to_json
from dpdau.ledger.chain import Head
from dpdau.ledger.keys import ApiKeys, KeyInfo
from dpdau.ledger.ledger import Ledger, migrate, restore
from dpdau.ledger.log import AuditEvent
from dpdau.ledger.schema import PendingRevision
from dpdau.ledger.steps import OpenRequest, StepRequest, StoredPlan

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
