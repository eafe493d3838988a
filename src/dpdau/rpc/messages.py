"""Nouns of the product as messages, field by field what `to_json` gives; and bytes as messages."""

import contextlib
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from dpdau.domain import Answer
from dpdau.rpc.v1 import dpdau_pb2 as v1

_M = TypeVar("_M")


def message_of(kind: type[_M], body: Mapping[str, Any]) -> _M:
    """A message with the fields of a JSON object; None is a field that is absent.

    Guarantee: a key that the message does not have raises, so no answer loses a field in silence.
    """
    message = kind()
    _fill(message, body)
    return message


def answer_of(answer: Answer) -> v1.Answer:
    """A release with the state of its budget; as JSON the two stand side by side."""
    release = answer.release.to_json()
    beside = {name: one for name, one in answer.to_json().items() if name not in release}
    return message_of(v1.Answer, {"release": release, **beside})


def parsed(kind: Any, content: bytes | None) -> Any:
    """The message in some bytes, or None; the library's error, which may carry them, ends here."""
    with contextlib.suppress(DecodeError):
        return None if content is None else kind.FromString(content)
    return None


def _fill(message: Any, body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if isinstance(value, Mapping):
            _fill(getattr(message, name), value)
        elif isinstance(value, list | tuple):
            items = getattr(message, name)
            for one in value:
                if isinstance(one, Mapping):
                    _fill(items.add(), one)
                elif isinstance(one, list | tuple):
                    _fill_in_order(items.add(), one)
                else:
                    items.append(one)
        elif value is not None:
            setattr(message, name, value)


def _fill_in_order(message: Any, values: list[Any] | tuple[Any, ...]) -> None:
    """A tuple of JSON: its values are the fields in the order of their numbers."""
    for field, value in zip(message.DESCRIPTOR.fields, values, strict=True):
        setattr(message, field.name, value)
