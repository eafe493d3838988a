"""Who may do what, and what is left of somebody who was erased."""

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, Self

OPERATOR: Final = "operator"
"""Who acts when nobody is named: whoever can run commands on the machine."""
_ACTOR: Final = ContextVar("actor", default=OPERATOR)


class Scope(StrEnum):
    """What an API key may do; `admin` implies every other scope."""

    INGEST = "ingest"
    READ = "read"
    RELEASE = "release"
    ERASE = "erase"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: the label of an API key, and what the key may do.

    Attributes:
        name: The label.
        scopes: What it may do.
        key_id: Which stored key it is; "" for one that is not stored.
        rate_limit: What the key may ask in one window, as `100/second`; None: as every other key.
    """

    name: str
    scopes: frozenset[Scope]
    key_id: str = ""
    rate_limit: str | None = None

    @property
    def actor(self) -> str:
        """Who it is in the audit log: a label alone may be that of several keys."""
        return f"{self.name} ({self.key_id})" if self.key_id else self.name

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do this; `admin` may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


def actor() -> str:
    """Who acts here and now, for the audit log."""
    return _ACTOR.get()


def act_as(name: str) -> None:
    """Names who acts from now on in this task or thread; each request names its caller anew."""
    _ACTOR.set(name)


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Names who acts in a `with` block."""
    before = _ACTOR.set(name)
    try:
        yield
    finally:
        _ACTOR.reset(before)


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
