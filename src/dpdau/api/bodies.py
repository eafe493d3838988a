"""Reads the bodies of ingest requests: size, media type, compression.

The limit is applied here rather than by the framework's own limiter, which would answer in plain
text before the key is looked at.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Final, Self, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from dpdau.errors import (
    RETRY_AFTER_SECONDS,
    InvalidEventError,
    OverloadedError,
    TooLargeError,
    UnsupportedMediaError,
)
from dpdau.ingest.decoded import TableForm
from dpdau.ingest.event import Form

_F = TypeVar("_F")

BODY_BYTES_MAX: Final = 32 << 20
BODY_SECONDS_MAX: Final = 60.0
WHOLE_SCOPE_KEY: Final = "dpdau.whole"
"""Set on a request whose body has arrived as a whole before anybody asked for it."""
HELD_BYTES_MAX: Final = 128 << 20
"""Bytes of all bodies at once; decoded they take a few times as much."""
_CHUNK_BYTES: Final = 1 << 20
_CODECS: Final = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
EVENT_FORMS: Final[Mapping[str, Form | TableForm]] = {"application/json": Form.ENVELOPE}
PLAN_FORMS: Final = {"application/json": None}
EVENTS_FORMS: Final[Mapping[str, Form | TableForm]] = {
    "application/json": Form.ARRAY,
    "application/x-ndjson": Form.NDJSON,
    "application/ndjson": Form.NDJSON,
    "application/jsonl": Form.NDJSON,
    "application/json-lines": Form.NDJSON,
    "application/vnd.apache.arrow.stream": TableForm.ARROW,
    "application/vnd.apache.parquet": TableForm.PARQUET,
    "application/x-parquet": TableForm.PARQUET,
}


class BodyReader:
    """Reads whole bodies, and bounds how many bytes of them are held at once.

    Args:
        bytes_max: Size of a body, as sent and decompressed.
        held_max: Bytes of all bodies that are held, from their first one to their answer.
    """

    def __init__(self, bytes_max: int, held_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._held_max = max(held_max, bytes_max)
        self._held = 0
        self._lock = threading.Lock()

    @property
    def bytes_max(self) -> int:
        """The size that a body may have, as sent and decompressed."""
        return self._bytes_max

    def holding(self) -> "Hold":
        """What one request holds of the room for bodies, for the time of a `with`."""
        return Hold(self)

    async def read(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, hold: "Hold"
    ) -> bytes:
        """The body of a request, decompressed.

        Args:
            scope: Its connection.
            headers: Its headers, by names in lower case.
            receive: Where the body comes from.
            hold: What it takes of the room for bodies.

        Raises:
            UnsupportedMediaError: The content encoding is not read.
            TooLargeError: It has more than the limit, as sent or decompressed.
            OverloadedError: Other requests hold too much.
            InvalidEventError: The compressed body is broken.
            HTTPException: 408, it did not arrive in `BODY_SECONDS_MAX`.
        """
        encoding = headers.get("content-encoding", "identity").strip().lower()
        codec = _CODECS.get(encoding)
        if codec is None and encoding not in ("", "identity"):
            raise UnsupportedMediaError("Expected Content-Encoding gzip, zstd or identity.")
        if scope.get(WHOLE_SCOPE_KEY):
            # Nothing to wait for, and a time-out costs as much as all the rest of this.
            body = await self._receive(headers, receive, hold)
        else:
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    body = await self._receive(headers, receive, hold)
            except TimeoutError:
                raise HTTPException(408) from None
        if codec is None:
            return body
        return await run_in_threadpool(decompress, body, codec, self._bytes_max, hold.cover)

    async def _receive(self, headers: Mapping[str, str], receive: Receive, hold: "Hold") -> bytes:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._bytes_max:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._bytes_max:
                raise self._too_large()
            hold.cover(size)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"Expected a body of at most {self._bytes_max} bytes.", bytes_max=self._bytes_max
        )

    def hold(self, more: int) -> None:
        """Notes that bytes are held from now on, or (below 0) no more.

        Raises:
            OverloadedError: There would be more than the limit.
        """
        with self._lock:
            if more > 0 and self._held + more > self._held_max:
                raise OverloadedError(
                    "Expected room for this body, found too many that are being taken; "
                    f"retry in {RETRY_AFTER_SECONDS} s.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._held += more


class Hold:
    """What one request holds, until the end of its `with`."""

    __slots__ = ("_bytes", "_reader")

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.hold(-self._bytes)

    def cover(self, size: int) -> None:
        """Holds at least that much."""
        if size > self._bytes:
            self._reader.hold(size - self._bytes)
            self._bytes = size


def decompress(
    body: bytes, codec: str, bytes_max: int, cover: Callable[[int], None] = lambda _size: None
) -> bytes:
    """Decompresses at most `bytes_max` bytes; `cover` hears how many there are so far.

    Raises:
        TooLargeError: There are more.
        InvalidEventError: It is not of the codec, or cut off.
    """
    out = bytearray()
    try:
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.BufferReader(body), codec)
        while chunk := stream.read(_CHUNK_BYTES):
            out += chunk
            if len(out) > bytes_max:
                raise TooLargeError(
                    f"Expected a body of at most {bytes_max} bytes when decompressed.",
                    bytes_max=bytes_max,
                )
            cover(len(out))
    except OSError:
        raise InvalidEventError(f"Expected a whole {codec} body.") from None
    return bytes(out)


def form_of(headers: Mapping[str, str], forms: Mapping[str, _F]) -> _F:
    """The form of a body by its content type.

    Raises:
        UnsupportedMediaError: No content type, or one that is not read.
    """
    try:
        return forms[media_type_of(headers)]
    except KeyError:
        raise UnsupportedMediaError(
            f"Expected Content-Type {' or '.join(forms)}.", expected=list(forms)
        ) from None


def media_type_of(headers: Mapping[str, str]) -> str:
    """The media type of a body in lower case, without parameters; empty if none is given."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
