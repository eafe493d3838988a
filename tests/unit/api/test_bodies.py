"""Bodies: decompression within a limit, and media types."""

import gzip
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.api.bodies import decompress
from dpdau.errors import InvalidEventError, TooLargeError


def _zstd(body: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(body, asbytes=True))


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [("gzip", gzip.compress), ("zstd", _zstd)]


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
@given(body=st.binary(max_size=5000))
def test_what_was_packed_comes_back(
    codec: str, pack: Callable[[bytes], bytes], body: bytes
) -> None:
    """Decompression is the inverse of compression, up to the exact limit."""
    assert body == decompress(pack(body), codec, max(len(body), 1))


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
@pytest.mark.parametrize("size", [1001, 50_000_000])
def test_more_than_the_limit_is_refused(
    codec: str, pack: Callable[[bytes], bytes], size: int
) -> None:
    """One byte over the limit is too large, and so is a bomb."""
    with pytest.raises(TooLargeError) as caught:
        decompress(pack(bytes(size)), codec, 1000)

    assert {"bytes_max": 1000} == caught.value.facts


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
def test_a_broken_body_is_refused_in_words_without_it(
    codec: str, pack: Callable[[bytes], bytes]
) -> None:
    """A cut-off or foreign body is refused; the message holds nothing of it."""
    whole = pack(b"canary-user" * 100)
    for body in (whole[:-3], b"canary-user", whole[5:]):
        with pytest.raises(InvalidEventError) as caught:
            decompress(body, codec, 10_000)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
