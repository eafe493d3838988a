"""Where the items of a JSON array lie, found without a look into them.

A decoder stops at the first item that it cannot read: a lone surrogate, bytes that are no UTF-8, or
too deep a nesting. Here only quotes and brackets count, so such an item costs itself alone.
"""

import re
from typing import Final

import msgspec
import numpy as np

from dpdau.errors import TooLargeError

__all__ = ["elements", "members"]

_BLOCK_BYTES: Final = 1 << 20
_SPACE: Final = b" \t\r\n"
_STEP: Final = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_KEY: Final = re.compile(rb'[ \t\r\n]*+("(?:[^"\\]|\\.)*+")[ \t\r\n]*+:', re.DOTALL)


def elements(content: bytes, items_max: int) -> list[bytes] | None:
    """The items of a JSON array as they stand there; None where there is no array.

    Guarantee: for any JSON array these are its items; what is inside them is not checked.

    Raises:
        TooLargeError: There are more than `items_max`; told before an item is cut out.
    """
    return _parts(content, b"[]", items_max)


def members(content: bytes, items_max: int) -> dict[str, bytes] | None:
    """The values of a JSON object by key, the last where a key repeats; None if there is none.

    Raises:
        TooLargeError: There are more than `items_max`.
    """
    parts = _parts(content, b"{}", items_max)
    if parts is None:
        return None
    found = ((part, _KEY.match(part)) for part in parts)
    return {_text(key[1]): part[key.end() :] for part, key in found if key is not None}


def _parts(content: bytes, brackets: bytes, items_max: int) -> list[bytes] | None:
    """What stands between the commas of the outermost brackets."""
    body = content.strip(_SPACE)
    if len(body) < len(brackets) or body[:1] + body[-1:] != brackets:
        return None
    # Pairs of backslashes first: what is left of a run then escapes the quote behind it.
    plain = np.frombuffer(body.replace(rb"\\", b"__").replace(rb"\"", b"__"), np.uint8)
    commas: list[int] = []
    quoted, depth = 0, 0
    for start in range(0, plain.size, _BLOCK_BYTES):
        block = plain[start : start + _BLOCK_BYTES]
        # The sum wraps at 256, which keeps its parity.
        inside = (np.cumsum(block == ord('"'), dtype=np.uint8) + np.uint8(quoted)) & 1
        depths = np.cumsum(_STEP[block] * (inside == 0), dtype=np.int32) + depth
        closed = np.flatnonzero(depths <= 0)
        if closed.size and start + int(closed[0]) < plain.size - 1:
            return None
        here = np.flatnonzero((block == ord(",")) & (inside == 0) & (depths == 1)) + start
        quoted, depth = int(inside[-1]), int(depths[-1])
        if len(commas) + here.size >= items_max:
            raise TooLargeError(f"Expected at most {items_max} items, found more.")
        commas += here.tolist()
    if quoted or depth:
        return None
    ends = [*commas, len(body) - 1]
    if not commas and not body[1:-1].strip(_SPACE):
        return []
    return [body[at + 1 : end] for at, end in zip([0, *commas], ends, strict=True)]


def _text(key: bytes) -> str:
    """A key as text; one that is none has no meaning here."""
    try:
        return msgspec.json.decode(key, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
