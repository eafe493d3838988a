"""API keys: made once, shown once, stored as a hash, ended by a new row."""

import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from dpdau.domain import Scope
from dpdau.errors import InvalidSettingError, NotFoundError
from dpdau.ledger.canonical import canonical_text, instant_text
from dpdau.ledger.chain import Chain
from dpdau.ledger.log import append_audit
from dpdau.ledger.tables import api_keys, key_revocations
from dpdau.ledger.transactions import Transactions

KEY_ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
LABEL_LENGTH_MAX: Final = 100
OPERATOR: Final = "operator"
"""Who acts when nobody is named: whoever can run commands on the machine."""

_SHAPE: Final = re.compile(
    rf"dpdau_([0-9a-f]{{{2 * KEY_ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII
)
_NO_HASH: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a key: everything but its secret."""

    key_id: str
    label: str
    scopes: frozenset[Scope]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None

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
        actor: str = OPERATOR,
    ) -> tuple[str, str]:
        """Makes a key.

        Returns:
            The key's id, and the whole key `dpdau_<id>_<secret>`, which is never shown again.

        Raises:
            InvalidSettingError: No scope, no label or too long a label, or an expiry in the past.
        """
        if not scopes:
            raise InvalidSettingError("Expected at least one scope for an API key, found none.")
        if not 1 <= len(label) <= LABEL_LENGTH_MAX:
            raise InvalidSettingError(
                f"Expected a label of 1..{LABEL_LENGTH_MAX} characters, found {len(label)}."
            )
        if expires_at is not None and expires_at <= self._transactions.clock():
            raise InvalidSettingError(
                f"Expected an expiry in the future, found {expires_at.isoformat()}."
            )
        key_id, secret = secrets.token_hex(KEY_ID_BYTES), secrets.token_hex(SECRET_BYTES)
        names = sorted({Scope(one).value for one in scopes})

        def unit(chain: Chain) -> None:
            chain.append(
                "api_key",
                {
                    "key_id": key_id,
                    "hash": _secret_hash(secret),
                    "scopes": canonical_text(names),
                    "label": label,
                    "created_at": chain.at,
                    "expires_at": None if expires_at is None else instant_text(expires_at),
                },
            )
            facts = {"key_id": key_id, "label": label, "scopes": names}
            append_audit(chain, actor=actor, action="key_created", facts=facts)

        self._transactions.write("create_key", unit)
        return key_id, f"dpdau_{key_id}_{secret}"

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

    def revoke(self, key_id: str, *, actor: str = OPERATOR) -> KeyInfo:
        """Ends a key; a key that was ended before stays ended since then.

        Raises:
            NotFoundError: There is no such key.
        """

        def unit(chain: Chain) -> KeyInfo:
            row = _find(chain.connection, key_id)
            if row is None:
                raise NotFoundError(f"Expected the id of an API key, found {key_id!r}.")
            if row.revoked_at is None:
                ending = {"key_id": key_id, "actor": actor, "at": chain.at}
                chain.append("key_revocation", ending)
                append_audit(chain, actor=actor, action="key_revoked", facts={"key_id": key_id})
                row = _find(chain.connection, key_id)
                assert row is not None and row.revoked_at is not None
            return _info(row)

        return self._transactions.write("revoke_key", unit)


_SELECT: Final = select(api_keys, key_revocations.c.at.label("revoked_at")).outerjoin_from(
    api_keys, key_revocations, api_keys.c.key_id == key_revocations.c.key_id
)


def _find(connection: Connection, key_id: str) -> Row[Any] | None:
    """The row of a key with the instant of its end."""
    return connection.execute(_SELECT.where(api_keys.c.key_id == key_id)).one_or_none()


def _info(row: Row[Any]) -> KeyInfo:
    """What may be shown of a row."""
    return KeyInfo(
        key_id=row.key_id,
        label=row.label,
        scopes=frozenset(Scope(one) for one in json.loads(row.scopes)),
        created_at=dt.datetime.fromisoformat(row.created_at),
        expires_at=_instant(row.expires_at),
        revoked_at=_instant(row.revoked_at),
    )


def _instant(text: str | None) -> dt.datetime | None:
    """An optional instant."""
    return None if text is None else dt.datetime.fromisoformat(text)


def _secret_hash(secret: str) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
