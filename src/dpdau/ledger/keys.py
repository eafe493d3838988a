"""API keys: made once, shown once, stored as a hash, replaced or ended by a new row."""

import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from dpdau.domain import OPERATOR, Scope
from dpdau.errors import InvalidSettingError, NotFoundError
from dpdau.ledger.canonical import canonical_text, instant_text
from dpdau.ledger.chain import Chain
from dpdau.ledger.log import append_audit
from dpdau.ledger.tables import (
    api_keys,
    key_limits,
    key_revocations,
    key_successions,
    key_uses,
)
from dpdau.ledger.transactions import Transactions

KEY_ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
LABEL_LENGTH_MAX: Final = 100
OVERLAP_MAX: Final = dt.timedelta(days=90)
"""How long a key may go on beside the one that takes its place."""

_SHAPE: Final = re.compile(
    rf"dpdau_([0-9a-f]{{{2 * KEY_ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII
)
_NO_HASH: Final = "0" * 64
_RATE: Final = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a key: everything but its secret.

    Attributes:
        key_id: Its name, which is no secret.
        label: What it is for.
        scopes: What it may do.
        created_at: When it was made.
        expires_at: When it ends by itself, or because another took its place; None: never.
        revoked_at: When it was ended.
        rate_limit: What it may ask in one window; None: as every other key.
        replaced_by: The key that takes its place.
        last_used: The hour in which it was last used, as far as that was written down.
    """

    key_id: str
    label: str
    scopes: frozenset[Scope]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    rate_limit: str | None = None
    replaced_by: str | None = None
    last_used: dt.datetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key may do this; `admin` may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def to_json(self) -> dict[str, Any]:
        """What `keys list` shows."""
        return {
            "key_id": self.key_id,
            "label": self.label,
            "scopes": sorted(self.scopes),
            "created_at": self.created_at.isoformat(),
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            "revoked_at": None if self.revoked_at is None else self.revoked_at.isoformat(),
            "rate_limit": self.rate_limit,
            "replaced_by": self.replaced_by,
            "last_used": None if self.last_used is None else self.last_used.isoformat(),
        }

    def is_live(self, now: dt.datetime) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class ApiKeys:
    """The stored keys of a service.

    Guarantee: the secret of a key is 256 bits from the operating system and is not stored; its
    SHA-256 is, which for a secret of that size cannot be searched.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def create(
        self,
        label: str,
        scopes: Collection[Scope],
        expires_at: dt.datetime | None,
        *,
        rate_limit: str | None = None,
        actor: str = OPERATOR,
    ) -> tuple[str, str]:
        """Makes a key.

        Args:
            label: What it is for.
            scopes: What it may do.
            expires_at: When it ends; None: never.
            rate_limit: What it may ask in one window, as `100/second` or `5000/day`.
            actor: Who makes it.

        Returns:
            The key's id, and the whole key `dpdau_<id>_<secret>`, which is never shown again.

        Raises:
            InvalidSettingError: No scope, no label or too long a label, an expiry in the past, or
                a limit that is none.
        """
        if not scopes:
            raise InvalidSettingError("Expected at least one scope for an API key, found none.")
        if not 1 <= len(label) <= LABEL_LENGTH_MAX:
            raise InvalidSettingError(
                f"Expected a label of 1..{LABEL_LENGTH_MAX} characters, found {len(label)}."
            )
        if rate_limit is not None and _RATE.fullmatch(rate_limit) is None:
            raise InvalidSettingError(
                f"Expected a limit as 100/second, 2000/hour or 5000/day, found {rate_limit!r}."
            )
        _require_later(expires_at, self._transactions.clock())
        made = _NewKey(label, frozenset(scopes), expires_at, rate_limit)
        self._transactions.write("create_key", lambda chain: made.append(chain, actor))
        return made.key_id, made.text

    def rotate(
        self,
        key_id: str,
        *,
        overlap: dt.timedelta,
        expires_at: dt.datetime | None = None,
        actor: str = OPERATOR,
    ) -> tuple[KeyInfo, KeyInfo, str]:
        """Makes the key that takes the place of another, with its label, scopes and limit.

        Guarantee: one transaction. From then on the new key is valid, and the old one until the
        overlap is over or it ends by itself, whichever is earlier; so a caller that changes from
        one to the other meanwhile is never without a valid key.

        Args:
            key_id: A live key that has no successor.
            overlap: How long it stays valid, 0..`OVERLAP_MAX`.
            expires_at: When the new key ends; by default it lives as long as the old one was to.
            actor: Who does it.

        Returns:
            The old key, the new one, and the text of the new one, which is never shown again.

        Raises:
            NotFoundError: There is no such key.
            InvalidSettingError: It is not live, it has a successor, or a time is out of range.
        """
        if not dt.timedelta() <= overlap <= OVERLAP_MAX:
            raise InvalidSettingError(
                f"Expected an overlap of 0..{OVERLAP_MAX.days} days, found {overlap}."
            )
        _require_later(expires_at, self._transactions.clock())

        def unit(chain: Chain) -> tuple[KeyInfo, KeyInfo, str]:
            now = dt.datetime.fromisoformat(chain.at)
            old = _info(_require(chain.connection, key_id))
            if not old.is_live(now):
                raise InvalidSettingError(f"Expected a live key, found {key_id} at its end.")
            if old.replaced_by is not None:
                raise InvalidSettingError(
                    f"Expected a key without a successor, found {key_id} replaced by "
                    f"{old.replaced_by}: rotate that one. If its text was lost, revoke it and make "
                    "another with `dpdau keys create`."
                )
            ends = expires_at
            if ends is None and old.expires_at is not None:
                ends = now + (old.expires_at - old.created_at)
            made = _NewKey(old.label, old.scopes, ends, old.rate_limit)
            made.append(chain, actor)
            ends_at = instant_text(min(now + overlap, old.expires_at or now + overlap))
            succession = {"key_id": key_id, "successor": made.key_id, "ends_at": ends_at}
            chain.append("key_succession", {**succession, "at": chain.at})
            append_audit(chain, actor=actor, action="key_replaced", facts=succession)
            found = [_info(_require(chain.connection, one)) for one in (key_id, made.key_id)]
            return found[0], found[1], made.text

        return self._transactions.write("rotate_key", unit)

    def note_uses(self, hours: Mapping[str, dt.datetime]) -> None:
        """Writes down in which hour keys were last used; an earlier hour changes nothing."""

        def unit(connection: Connection) -> None:
            for key_id, hour in hours.items():
                row = {"key_id": key_id, "used_at": instant_text(hour)}
                known = select(key_uses.c.used_at).where(key_uses.c.key_id == key_id)
                before = connection.execute(known).scalar_one_or_none()
                if before is None:
                    connection.execute(insert(key_uses), row)
                elif before < row["used_at"]:
                    connection.execute(
                        update(key_uses).where(key_uses.c.key_id == key_id).values(row)
                    )

        self._transactions.database.run("note_key_uses", unit)

    def authenticate(self, text: str, now: dt.datetime) -> KeyInfo | None:
        """The live key that a text is, or None.

        The comparison takes the same time for a wrong secret and for an unknown key.
        """
        match = _SHAPE.fullmatch(text)
        if match is None:
            return None
        key_id, secret = match.groups()
        row = self._transactions.read("authenticate", lambda connection: _find(connection, key_id))
        expected = _NO_HASH if row is None else row.hash
        equal = hmac.compare_digest(_secret_hash(secret), expected)
        if row is None or not equal:
            return None
        found = _info(row)
        return found if found.is_live(now) else None

    def list(self) -> tuple[KeyInfo, ...]:
        """Every key that was ever made, oldest first."""
        rows = self._transactions.read(
            "list_keys",
            lambda connection: connection.execute(_SELECT.order_by(api_keys.c.seq)).all(),
        )
        return tuple(_info(row) for row in rows)

    def find(self, key_id: str) -> KeyInfo | None:
        """What may be shown of one key, or None."""
        row = self._transactions.read("find_key", lambda connection: _find(connection, key_id))
        return None if row is None else _info(row)

    def revoke(self, key_id: str, *, actor: str = OPERATOR) -> KeyInfo:
        """Ends a key; a key that was ended before stays ended since then.

        Raises:
            NotFoundError: There is no such key.
        """

        def unit(chain: Chain) -> KeyInfo:
            if _require(chain.connection, key_id).revoked_at is None:
                ending = {"key_id": key_id, "actor": actor, "at": chain.at}
                chain.append("key_revocation", ending)
                append_audit(chain, actor=actor, action="key_revoked", facts={"key_id": key_id})
            return _info(_require(chain.connection, key_id))

        return self._transactions.write("revoke_key", unit)


@dataclass(frozen=True, slots=True)
class _NewKey:
    """A key that is being made."""

    label: str
    scopes: frozenset[Scope]
    expires_at: dt.datetime | None
    rate_limit: str | None
    key_id: str = field(default_factory=lambda: secrets.token_hex(KEY_ID_BYTES))
    secret: str = field(default_factory=lambda: secrets.token_hex(SECRET_BYTES), repr=False)

    @property
    def text(self) -> str:
        """The whole key."""
        return f"dpdau_{self.key_id}_{self.secret}"

    def append(self, chain: Chain, actor: str) -> None:
        """Writes it down, without its secret."""
        names = sorted({Scope(one).value for one in self.scopes})
        chain.append(
            "api_key",
            {
                "key_id": self.key_id,
                "hash": _secret_hash(self.secret),
                "scopes": canonical_text(names),
                "label": self.label,
                "created_at": chain.at,
                "expires_at": None if self.expires_at is None else instant_text(self.expires_at),
            },
        )
        facts: dict[str, Any] = {"key_id": self.key_id, "label": self.label, "scopes": names}
        if self.rate_limit is not None:
            chain.append("key_limit", {"key_id": self.key_id, "rate_limit": self.rate_limit})
            facts["rate_limit"] = self.rate_limit
        append_audit(chain, actor=actor, action="key_created", facts=facts)


_SELECT: Final = (
    select(
        api_keys,
        key_revocations.c.at.label("revoked_at"),
        key_limits.c.rate_limit,
        key_successions.c.successor,
        key_successions.c.ends_at,
        key_uses.c.used_at,
    )
    .outerjoin(key_revocations, api_keys.c.key_id == key_revocations.c.key_id)
    .outerjoin(key_limits, api_keys.c.key_id == key_limits.c.key_id)
    .outerjoin(key_successions, api_keys.c.key_id == key_successions.c.key_id)
    .outerjoin(key_uses, api_keys.c.key_id == key_uses.c.key_id)
)


def _find(connection: Connection, key_id: str) -> Row[Any] | None:
    """The row of a key with the instant of its end."""
    return connection.execute(_SELECT.where(api_keys.c.key_id == key_id)).one_or_none()


def _require(connection: Connection, key_id: str) -> Row[Any]:
    """The row of a key.

    Raises:
        NotFoundError: There is no such key.
    """
    row = _find(connection, key_id)
    if row is None:
        raise NotFoundError(f"Expected the id of an API key, found {key_id!r}.")
    return row


def _require_later(expires_at: dt.datetime | None, now: dt.datetime) -> None:
    """Refuses an expiry that is over."""
    if expires_at is not None and expires_at <= now:
        raise InvalidSettingError(
            f"Expected an expiry in the future, found {expires_at.isoformat()}."
        )


def _info(row: Row[Any]) -> KeyInfo:
    """What may be shown of a row; the end that a successor brings is never the later one."""
    return KeyInfo(
        key_id=row.key_id,
        label=row.label,
        scopes=frozenset(Scope(one) for one in json.loads(row.scopes)),
        created_at=dt.datetime.fromisoformat(row.created_at),
        expires_at=_instant(row.ends_at or row.expires_at),
        revoked_at=_instant(row.revoked_at),
        rate_limit=row.rate_limit,
        replaced_by=row.successor,
        last_used=_instant(row.used_at),
    )


def _instant(text: str | None) -> dt.datetime | None:
    """An optional instant."""
    return None if text is None else dt.datetime.fromisoformat(text)


def _secret_hash(secret: str) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
