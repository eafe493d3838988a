"""Nouns as messages: no field is lost in silence."""

import pytest

from dpdau.rpc.messages import message_of, parsed
from dpdau.rpc.v1 import dpdau_pb2 as v1


def test_a_message_has_the_fields_of_the_object() -> None:
    """Texts, lists, objects and pairs get to their fields; None is absent."""
    block = message_of(
        v1.Quote,
        {
            "metric": "dau",
            "segment": None,
            "budget": {"rdp_orders": (2, 4), "rdp_curve": ((2, 0.5),)},
        },
    )

    assert ("dau", False) == (block.metric, block.HasField("segment"))
    assert [2, 4] == list(block.budget.rdp_orders)
    assert [v1.OrderEpsilon(order=2, epsilon=0.5)] == list(block.budget.rdp_curve)


def test_an_unknown_field_raises() -> None:
    """An answer that grows without its message does not pass."""
    with pytest.raises(AttributeError):
        message_of(v1.Quote, {"more": 1})


def test_bytes_that_are_no_message() -> None:
    """They give None, as does a call that sends nothing."""
    assert None is parsed(v1.EraseRequest, b"\x0a\x02\xff\xff")
    assert None is parsed(v1.EraseRequest, None)
    assert v1.EraseRequest() == parsed(v1.EraseRequest, b"")
