"""One spelling for everything the ledger stores."""

import datetime as dt
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.domain import BoundedCount, ContributionBounds, Metric, Release, Segment, Unit, Window
from dpdau.errors import InvalidPlanError, LedgerCorruptError
from dpdau.ledger.canonical import (
    canonical_json,
    fraction_text,
    instant_text,
    release_from_json,
    release_to_json,
)
from simulation.ledger_cases import NOW, release

TEXT = st.text(min_size=1, max_size=20)
INSTANTS = st.datetimes(timezones=st.just(dt.UTC))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def releases(draw: st.DrawFn) -> Release:
    """Any release that could be published."""
    estimate = draw(st.integers())
    below, above = draw(st.integers(min_value=0)), draw(st.integers(min_value=0))
    dimension = draw(TEXT.filter(lambda text: "=" not in text))
    return Release(
        release_id=draw(TEXT),
        plan_id=draw(TEXT),
        step=draw(st.integers(min_value=0)),
        metric=draw(st.sampled_from(Metric)),
        window=Window(
            draw(st.dates(dt.date(1900, 1, 1), dt.date(9998, 12, 31))), draw(st.integers(1, 64))
        ),
        segment=draw(st.none() | st.builds(Segment, st.just(dimension), TEXT)),
        timezone=draw(TEXT),
        estimate=estimate,
        lower_95=estimate - below,
        upper_95=estimate + above,
        noise_stddev=draw(st.floats(0, allow_nan=False, allow_infinity=False)),
        mechanism=draw(TEXT),
        sketch_impl=draw(TEXT),
        epsilon=draw(st.floats(1e-300, 1e300)),
        delta=draw(st.floats(0, 1, exclude_max=True)),
        status=draw(TEXT),
        version=draw(TEXT),
        released_at=draw(st.datetimes(timezones=st.just(dt.UTC))),
    )


@given(releases())
def test_release_round_trip_is_exact(one: Release) -> None:
    """A release reads back equal, and its bytes are the only bytes it has."""
    body = release_to_json(one)

    assert one == release_from_json(body)
    assert body == release_to_json(release_from_json(body))
    assert body == canonical_json(json.loads(body))


@given(JSON)
def test_canonical_json_is_a_fixed_point(value: object) -> None:
    """Reading canonical bytes and writing them again changes nothing."""
    body = canonical_json(value)

    assert body == canonical_json(json.loads(body))
    assert body.isascii()


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_key_order_does_not_matter(value: dict[str, int]) -> None:
    """Equal objects have equal bytes, in whichever order they were built."""
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_a_number_has_one_spelling() -> None:
    """1 and 1.0 in a float field give the same bytes, so a replay cannot differ."""
    assert release_to_json(replace(release(), epsilon=1.0)) == release_to_json(
        replace(release(), epsilon=1)
    )


@pytest.mark.parametrize(
    "private",
    [BoundedCount(7, ContributionBounds(), Unit.USER), np.int64(7), {1, 2}, float("nan")],
)
def test_what_has_no_json_form_is_refused(private: object) -> None:
    """A private count, a column value, a set or a NaN cannot be written by accident."""
    with pytest.raises((TypeError, ValueError)):
        canonical_json({"value": private})


def test_a_release_that_does_not_read_back_is_refused() -> None:
    """A segment whose dimension holds `=` would come back as another segment."""
    with pytest.raises(InvalidPlanError, match="reads back equal"):
        release_to_json(replace(release(), segment=Segment("a=b", "c")))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"metric": "dau"}', b"\xff", "null"])
def test_bytes_that_are_not_a_release_are_corruption(body: bytes | str) -> None:
    """Unreadable stored bytes stop the reader."""
    with pytest.raises(LedgerCorruptError, match="stored release"):
        release_from_json(body)


@given(st.fractions())
def test_fraction_text_is_exact(value: Fraction) -> None:
    """Nothing is rounded on the way into the ledger."""
    assert value == Fraction(fraction_text(value))


@given(
    INSTANTS,
    INSTANTS,
)
def test_instants_sort_as_text(a: dt.datetime, b: dt.datetime) -> None:
    """Text order is time order, and an instant reads back equal."""
    assert (a < b) == (instant_text(a) < instant_text(b))
    assert a == dt.datetime.fromisoformat(instant_text(a))


def test_instant_needs_a_zone() -> None:
    """A clock without a zone is a bug."""
    with pytest.raises(AssertionError):
        instant_text(NOW.replace(tzinfo=None))
