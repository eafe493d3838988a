"""Cutting the items out of JSON arrays and objects."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.errors import TooLargeError
from dpdau.ingest import items
from dpdau.ingest.items import elements, members

TEXT = st.text(st.sampled_from('a"\\\\,[]{}:é\n\U0001f600'), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
STYLES: list[dict[str, Any]] = [
    {},
    {"indent": 1},
    {"ensure_ascii": False, "separators": (",", ":")},
]


@given(st.lists(JSON, max_size=6), st.sampled_from(STYLES), st.integers(1, 9))
def test_the_items_of_any_array_are_found(
    values: list[object], style: dict[str, Any], block: int
) -> None:
    """Each on its own is the same JSON as in the array, wherever a block ends."""
    content = b" \n" + json.dumps(values, **style).encode() + b"\r\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "_BLOCK_BYTES", block)
        found = elements(content, 100)

    assert found is not None
    assert values == [json.loads(one) for one in found]


@given(st.dictionaries(TEXT, JSON, max_size=5), st.sampled_from(STYLES))
def test_the_values_of_any_object_are_found(
    values: dict[str, object], style: dict[str, Any]
) -> None:
    """By their keys, escaped or not."""
    found = members(json.dumps(values, **style).encode(), 100)

    assert found is not None
    assert values == {key: json.loads(one) for key, one in found.items()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"]",
        b"{}",
        b"[1",
        b"1]",
        b"[1]]",
        b"[[1]",
        b"[1][2]",
        b'["]',
        b'["a\\"]',
        b"x[1]",
    ],
)
def test_what_is_no_array_has_no_items(content: bytes) -> None:
    """Brackets that do not close, or close before the end, are none."""
    assert None is elements(content, 100)


def test_a_key_that_repeats_has_its_last_value() -> None:
    """As in any other reader; what is no key is passed over."""
    assert {"a": b"2"} == members(b'{"a":1, nothing, "a":2}', 100)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_array_or_none(content: bytes) -> None:
    """Nothing raises."""
    for found in (elements(b"[%b]" % content, 100), members(b"{%b}" % content, 100)):
        assert found is None or len(found) <= 1 + content.count(b",")


def test_more_items_than_the_limit_are_refused() -> None:
    """The limit itself is taken."""
    assert 3 == len(elements(b"[1,2,3]", 3) or [])
    with pytest.raises(TooLargeError):
        elements(b"[1,2,3,4]", 3)
