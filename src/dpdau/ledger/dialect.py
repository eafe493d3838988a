"""What the ledger asks of a kind of database."""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from sqlalchemy import Connection, Engine

from dpdau.errors import DpdauError

ATTEMPTS_MAX: Final = 3
"""How often a transaction is run that may simply be repeated."""
Access = Literal["read", "write", "schema"]
"""What a transaction is for: a snapshot, rows, or tables that may not be there yet."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an error of the database means; `again` where the transaction may simply be repeated."""

    error: DpdauError
    again: bool = False


class Dialect(Protocol):
    """One kind of database.

    Guarantee: between `begin` of a writing transaction and its end no other one writes, and it sees
    everything that was committed before. What it commits survives a power cut.

    Attributes:
        place: Where the ledger is, for a reader; without a password.
    """

    place: str

    def make_engine(self) -> Engine:
        """The pool of connections."""

    def begin(self, connection: Connection, name: str, access: Access) -> None:
        """The first statements of a transaction."""

    def translate(self, name: str, error: Exception) -> Trouble | None:
        """What an error means; None where only a bug can cause it."""
