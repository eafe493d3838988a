"""Reads `HASH_SALT_SECRET` and refuses what is none."""

import base64
import binascii
import contextlib
import hashlib
from typing import Final

from dpdau.errors import (
    InvalidSettingError,
)

SECRET_BYTES_MIN: Final = 32
SECRET_BYTES_MAX: Final = hashlib.blake2b.MAX_KEY_SIZE
SECRET_DISTINCT_BYTES_MIN: Final = 8

_HOW_TO_MAKE_ONE: Final = (
    'Make one with: echo "b64:$(openssl rand -base64 32)", set it as HASH_SALT_SECRET, and keep it.'
)
_PERSON_LONG_SECRET: Final = b"dpdau-long1"


def parse_secret(text: str) -> bytes:
    """Reads `HASH_SALT_SECRET`: `b64:` and the base64 form of 32 or more random bytes.

    Bytes beyond the 64 that a key can have are not cut off: a longer secret is hashed to 64 bytes.

    Raises:
        InvalidSettingError: The text is empty, a placeholder, not base64, or too short; the message
            says how to make one and does not repeat the text.

    Example:
        >>> len(parse_secret("b64:" + "8J+UkSBub3QgYSBzZWNyZXQsIGJ1dCBsb25nIGVub3VnaA=="))
        34
    """
    prefix, _, encoded = text.strip().partition(":")
    secret: bytes | None = None
    standard = encoded.replace("-", "+").replace("_", "/")
    if prefix == "b64":
        # The with block ends before the raise: the error would otherwise carry the text.
        with contextlib.suppress(binascii.Error, ValueError):
            secret = base64.b64decode(standard, validate=True)
    if secret is None:
        raise InvalidSettingError(
            "Expected HASH_SALT_SECRET as b64: and base64 text, found something else."
            f" {_HOW_TO_MAKE_ONE}"
        )
    if len(secret) > SECRET_BYTES_MAX:
        _check_random(secret)
        secret = hashlib.blake2b(secret, person=_PERSON_LONG_SECRET).digest()
    check_secret(secret)
    return secret


def check_secret(secret: bytes) -> None:
    """Refuses what cannot be a secret."""
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise InvalidSettingError(
            f"Expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in HASH_SALT_SECRET, found"
            f" {len(secret)}. {_HOW_TO_MAKE_ONE}"
        )
    _check_random(secret)


def _check_random(secret: bytes) -> None:
    """Refuses an obvious placeholder."""
    word = secret.lower()
    placeholder = word.startswith(b"{{") and word.endswith(b"}}")
    if placeholder or b"changeme" in word or len(set(secret)) < SECRET_DISTINCT_BYTES_MIN:
        raise InvalidSettingError(
            f"Expected random bytes in HASH_SALT_SECRET, found a placeholder. {_HOW_TO_MAKE_ONE}"
        )
