"""One spelling for everything the ledger stores: JSON, fractions, instants and releases.

The hash chain is over these bytes, and a replayed release is these bytes, so each value has exactly
one form: ASCII, sorted keys, no spaces, no NaN, floats in the shortest form that reads back equal.
"""

import datetime as dt
import json
from fractions import Fraction

from dpdau.domain import Release
from dpdau.errors import InvalidPlanError, LedgerCorruptError


def canonical_json(value: object) -> bytes:
    """The canonical JSON bytes of a JSON-ready value.

    Raises:
        TypeError, ValueError: The value has no JSON form (a private noun, a NaN): always a bug.

    Example:
        >>> canonical_json({"b": 1.5, "a": None})
        b'{"a":null,"b":1.5}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def canonical_text(value: object) -> str:
    """`canonical_json` as text, the form of JSON columns."""
    return canonical_json(value).decode("ascii")


def fraction_text(value: Fraction) -> str:
    """An exact fraction as `num/den`; `Fraction` reads it back.

    Example:
        >>> fraction_text(Fraction("0.3"))
        '3/10'
    """
    return f"{value.numerator}/{value.denominator}"


def instant_text(at: dt.datetime) -> str:
    """An aware instant in UTC with a fixed width, so that text order is time order."""
    assert at.tzinfo is not None, "a Clock gives aware instants"
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")


def release_to_json(release: Release) -> bytes:
    """The stored bytes of a release, equal for equal releases.

    Raises:
        InvalidPlanError: The release does not read back equal.
    """
    # Writing what was read back gives a number one spelling, whether it came as 1 or as 1.0.
    again = Release.from_json(json.loads(canonical_json(release.to_json())))
    if again != release:
        raise InvalidPlanError(
            f"Expected a release that reads back equal, found {release.release_id!r}."
        )
    return canonical_json(again.to_json())


def release_from_json(body: bytes | str) -> Release:
    """The release that `release_to_json` wrote.

    Raises:
        LedgerCorruptError: The bytes are not a stored release.
    """
    try:
        return Release.from_json(json.loads(body))
    except (KeyError, TypeError, ValueError, AssertionError, InvalidPlanError) as error:
        raise LedgerCorruptError(
            f"Expected a stored release, found bytes that are not one: {error!r}."
        ) from error
