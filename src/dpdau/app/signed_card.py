"""A signed card: the statement with its signature, and the key that signs.

It loads neither the ledger nor the activity store: a reader who checks a card has none of them.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dpdau.errors import (
    CardMismatchError,
    NotFoundError,
    StoreCorruptError,
    StoreUnavailableError,
    UnsupportedMediaError,
)
from dpdau.ledger.canonical import canonical_json

CARD_FORMAT: Final = 1
"""The number of what a statement holds and of how its pages look; one never changes the other."""
KEY_PREFIX: Final = "ed25519:"
_CONTEXT: Final = b"dpdau privacy card\n"
"""What is signed begins with it, so that the key signs nothing that could be taken for another."""


@dataclass(frozen=True, slots=True)
class Card:
    """A statement with the signature on it.

    Args:
        statement: JSON-ready; what `statement_of` gives.
        public_key: Of the key that signed, as `KEY_PREFIX` and base64.
        signature: Base64.
    """

    statement: Mapping[str, Any]
    public_key: str
    signature: str

    def to_json(self) -> dict[str, Any]:
        """All fields; what is embedded in every page."""
        return {
            "statement": dict(self.statement),
            "public_key": self.public_key,
            "signature": self.signature,
        }

    @classmethod
    def from_json(cls, body: Any) -> Self:
        """The inverse of `to_json`.

        Raises:
            UnsupportedMediaError: It is no card.
        """
        names = ("public_key", "signature")
        if (
            not isinstance(body, dict)
            or not isinstance(body.get("statement"), dict)
            or not all(isinstance(body.get(name), str) for name in names)
        ):
            raise UnsupportedMediaError(
                "Expected a privacy card with statement, public_key and signature, found none; "
                "pass a file that `dpdau card` wrote."
            )
        return cls(body["statement"], body["public_key"], body["signature"])

    def check_signature(self) -> None:
        """Proves that the statement is the one that the key signed.

        Raises:
            CardMismatchError: It is not.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(_decoded(self.public_key))
            key.verify(base64.b64decode(self.signature, validate=True), _signed(self.statement))
        except (InvalidSignature, ValueError, TypeError, RecursionError):
            raise CardMismatchError(
                "Expected a statement under a good signature, found another: the statement, the "
                "key or the signature was changed. Ask its publisher for the card."
            ) from None


class CardKey:
    """The key that signs cards: in its own file under `DATA_DIR`, 0600, made at first use."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> Self:
        """The key of a file.

        Raises:
            NotFoundError: There is none.
            StoreCorruptError: The file holds no such key.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"Expected the key that signs cards at {path}, found none; `dpdau card --month` "
                "makes it."
            ) from None
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected {path} to be readable, found: {error.strerror}."
            ) from None
        try:
            key = serialization.load_pem_private_key(text, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise StoreCorruptError(
                f"Expected an Ed25519 key in {path}, found something else. Restore the file; or "
                "move it away, and tell the readers of your cards the new key."
            )
        return cls(key)

    @classmethod
    def create(cls, path: Path) -> bool:
        """Makes the file unless it is there; tells whether it did.

        Raises:
            StoreUnavailableError: It cannot be written.
        """
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            try:
                # Whole or not at all, and never over a key that is there.
                os.link(fresh, path)
            except FileExistsError:
                return False
            finally:
                fresh.unlink()
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected {path} to be writable, found: {error.strerror}."
            ) from None
        return True

    @property
    def public(self) -> str:
        """The public key, as text."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return KEY_PREFIX + base64.b64encode(raw).decode()

    def sign(self, statement: Mapping[str, Any]) -> Card:
        """A statement under a signature."""
        signature = base64.b64encode(self._key.sign(_signed(statement))).decode()
        return Card(statement, self.public, signature)


def _signed(statement: Mapping[str, Any]) -> bytes:
    return _CONTEXT + canonical_json(statement)


def _decoded(public_key: str) -> bytes:
    """The bytes of a public key.

    Raises:
        ValueError: It is no such text.
    """
    if not public_key.startswith(KEY_PREFIX):
        raise ValueError("expected a prefix")
    try:
        return base64.b64decode(public_key.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("expected base64") from None
