"""Reads the bodies of ingest requests: size, media type, compression.

The limit is applied here rather than by the framework's own limiter, which would answer in plain
text before the key is looked at.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar

import pyarrow as pa
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dpdau.errors import InvalidEventError, TooLargeError, UnsupportedMediaError
from dpdau.ingest.event import Form

_F = TypeVar("_F")

BODY_BYTES_MAX: Final = 32 << 20
BODY_SECONDS_MAX: Final = 60.0
BODIES_AT_ONCE_MAX: Final = 32
_CHUNK_BYTES: Final = 1 << 20
_CODECS: Final = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
EVENT_FORMS: Final = {"application/json": Form.ENVELOPE}
PLAN_FORMS: Final = {"application/json": None}
EVENTS_FORMS: Final = {
    "application/json": Form.ARRAY,
    "application/x-ndjson": Form.NDJSON,
    "application/ndjson": Form.NDJSON,
    "application/jsonl": Form.NDJSON,
    "application/json-lines": Form.NDJSON,
}


class BodyReader:
    """Reads whole bodies, a bounded number of them at once."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.slots = asyncio.Semaphore(BODIES_AT_ONCE_MAX)

    async def read(self, request: Request) -> bytes:
        """The body of a request, decompressed.

        Raises:
            UnsupportedMediaError: The content encoding is not read.
            TooLargeError: It has more than the limit, as sent or decompressed.
            InvalidEventError: The compressed body is broken.
            HTTPException: 408, it did not arrive in `BODY_SECONDS_MAX`.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        codec = _CODECS.get(encoding)
        if codec is None and encoding not in ("", "identity"):
            raise UnsupportedMediaError("Expected Content-Encoding gzip, zstd or identity.")
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await self._receive(request)
        except TimeoutError:
            raise HTTPException(408) from None
        if codec is None:
            return body
        return await run_in_threadpool(decompress, body, codec, self._bytes_max)

    async def _receive(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._bytes_max:
            raise self._too_large()
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._bytes_max:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"Expected a body of at most {self._bytes_max} bytes.", bytes_max=self._bytes_max
        )


def decompress(body: bytes, codec: str, bytes_max: int) -> bytes:
    """Decompresses at most `bytes_max` bytes.

    Raises:
        TooLargeError: There are more.
        InvalidEventError: It is not of the codec, or cut off.
    """
    out = bytearray()
    try:
        stream = pa.CompressedInputStream(pa.BufferReader(body), codec)
        while chunk := stream.read(_CHUNK_BYTES):
            out += chunk
            if len(out) > bytes_max:
                raise TooLargeError(
                    f"Expected a body of at most {bytes_max} bytes when decompressed.",
                    bytes_max=bytes_max,
                )
    except OSError:
        raise InvalidEventError(f"Expected a whole {codec} body.") from None
    return bytes(out)


def form_of(request: Request, forms: Mapping[str, _F]) -> _F:
    """The form of a body by its content type.

    Raises:
        UnsupportedMediaError: No content type, or one that is not read.
    """
    try:
        return forms[media_type_of(request)]
    except KeyError:
        raise UnsupportedMediaError(
            f"Expected Content-Type {' or '.join(forms)}.", expected=list(forms)
        ) from None


def media_type_of(request: Request) -> str:
    """The media type of a body in lower case, without parameters; empty if none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
