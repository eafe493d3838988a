"""Who may do what, and what is left of somebody who was erased."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Scope(StrEnum):
    """What an API key may do; `admin` implies every other scope."""

    INGEST = "ingest"
    READ = "read"
    RELEASE = "release"
    ERASE = "erase"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: the label of an API key, and what the key may do."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do this; `admin` may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What an erasure did; names no user."""

    erasure_id: str
    days_touched: int
    done_at: dt.datetime

    def to_json(self) -> dict[str, Any]:
        """The answer of an erasure."""
        return {
            "erasure_id": self.erasure_id,
            "days_touched": self.days_touched,
            "done_at": self.done_at.isoformat(),
        }


class PrivateValueError(TypeError):
    """A private noun was about to be written where people can read it: always a bug."""


class SupportsClose(Protocol):
    """Something with a lifetime that `app` ends."""

    def close(self) -> None:
        """Releases what it holds; may be called twice."""
