"""Who may do what, and what is left of somebody who was erased."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self


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
class Tombstone:
    """What a plan that is open keeps of an erased user: a keyed pseudonym that counts as nobody.

    Attributes:
        kept_for: The plan: a month "YYYY-MM", or a day that is counted live.
        through: The last day that the plan counts; it goes once that day is taken or over.
    """

    kept_for: str
    through: dt.date

    def to_json(self) -> dict[str, str]:
        """One item of a receipt."""
        return {"kept_for": self.kept_for, "through": self.through.isoformat()}

    @classmethod
    def from_json(cls, body: Mapping[str, str]) -> Self:
        """The inverse of `to_json`."""
        return cls(body["kept_for"], dt.date.fromisoformat(body["through"]))


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What an erasure did; names no user.

    Attributes:
        erasure_id: Random, so that it says nothing of the user.
        days_touched: Distinct days on which the user was taken out.
        done_at: When.
        keys_searched: Under how many live keys the user was looked for.
        tombstones: What is kept, and until when; None with `keys_searched` and `version` for an
            erasure by a version that did not write them down.
        version: Of the product that did it.
        files_cleared: Whether every file that held a replaced row is gone. False only after a
            crash or beside a reader that would not end: `dpdau flush-deletes` finishes it.
    """

    erasure_id: str
    days_touched: int
    done_at: dt.datetime
    keys_searched: int | None = None
    tombstones: tuple[Tombstone, ...] | None = None
    version: str | None = None
    files_cleared: bool = False

    def to_json(self) -> dict[str, Any]:
        """The answer of an erasure."""
        return {
            "erasure_id": self.erasure_id,
            "days_touched": self.days_touched,
            "done_at": self.done_at.isoformat(),
            "keys_searched": self.keys_searched,
            "tombstones": (
                None if self.tombstones is None else [one.to_json() for one in self.tombstones]
            ),
            "version": self.version,
            "files_cleared": self.files_cleared,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; an older service sends less."""
        tombstones = body.get("tombstones")
        return cls(
            erasure_id=body["erasure_id"],
            days_touched=int(body["days_touched"]),
            done_at=dt.datetime.fromisoformat(body["done_at"]),
            keys_searched=body.get("keys_searched"),
            tombstones=(
                None if tombstones is None else tuple(map(Tombstone.from_json, tombstones))
            ),
            version=body.get("version"),
            files_cleared=bool(body.get("files_cleared", False)),
        )


class PrivateValueError(TypeError):
    """A private noun was about to be written where people can read it: always a bug."""


class SupportsClose(Protocol):
    """Something with a lifetime that `app` ends."""

    def close(self) -> None:
        """Releases what it holds; may be called twice."""
