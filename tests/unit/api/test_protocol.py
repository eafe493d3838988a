"""The limit on heads and trailers, at its edges; over a socket it is tested in `test_server`."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from dpdau.api.protocol import HEAD_BYTES_MAX, PIECE_BYTES, BoundedHttpProtocol


class Wire(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        """Keeps it."""
        self.written += bytes(data)

    def close(self) -> None:
        """Ends it."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """The test sends all the same."""

    def resume_reading(self) -> None:
        """The test sends all the same."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body, once it is there."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def talk(chunks: Iterator[bytes] | list[bytes]) -> tuple[Wire, int]:
    """Sends chunks until the connection is closed; how many bytes that took."""

    async def run() -> tuple[Wire, int]:
        config = uvicorn.Config(echo, ws="none", lifespan="off", log_config=None)
        protocol, wire, sent = BoundedHttpProtocol(config, ServerState(), {}), Wire(), 0
        protocol.connection_made(wire)
        for chunk in chunks:
            protocol.data_received(chunk)
            sent += len(chunk)
            for _ in range(5):
                await asyncio.sleep(0)
            if wire.closed:
                break
        protocol.connection_lost(ConnectionAbortedError())
        return wire, sent

    return asyncio.run(run())


def refusal(wire: Wire) -> tuple[int, dict[str, Any]]:
    """Status and document of the one answer."""
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert 1 == wire.written.count(b"HTTP/1.1 ")
    assert b"application/problem+json" in head
    assert b"Connection: close" in head
    return int(head.split()[1]), json.loads(body)


def head_of(size: int) -> bytes:
    """A whole head of a size."""
    start, end = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("step", [1000, PIECE_BYTES, 1 << 20])
def test_a_head_of_the_limit_is_taken(step: int) -> None:
    """However it arrives, and after another request on the same connection."""
    head = head_of(HEAD_BYTES_MAX)
    chunks = [head[start : start + step] for start in range(0, len(head), step)]

    wire, _ = talk([*chunks, *chunks])

    assert 2 == wire.written.count(b"HTTP/1.1 200 OK")
    assert not wire.closed


START: dict[str, bytes] = {
    "nothing at all": b"",
    "request line": b"GET /",
    "name of a header": b"GET / HTTP/1.1\r\nHost: x\r\nX",
    "header": b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ",
    "trailer": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ",
    "chunk extension": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
}


@pytest.mark.parametrize("place", START)
@pytest.mark.parametrize("step", [999, 1 << 18])
def test_what_is_longer_is_cut_off(place: str, step: int) -> None:
    """Wherever a request goes on without an end, it is refused within a piece of the limit."""
    filler = b"\r\n" if place == "nothing at all" else b"aa"

    def chunks() -> Iterator[bytes]:
        yield START[place]
        while True:
            yield filler * (step // 2)

    wire, sent = talk(chunks())

    status, document = refusal(wire)
    assert (431, "request_header_fields_too_large") == (status, document["code"])
    assert sent <= HEAD_BYTES_MAX + PIECE_BYTES + step + len(START[place])


def test_many_headers_count_together() -> None:
    """Short headers without end are as long as one."""

    def chunks() -> Iterator[bytes]:
        yield b"GET / HTTP/1.1\r\n"
        while True:
            yield b"a: b\r\n" * 100

    wire, _ = talk(chunks())

    assert 431 == refusal(wire)[0]


@pytest.mark.parametrize(
    "body_of",
    [
        lambda size: b"Content-Length: %d\r\n\r\n" % size + b"x" * size,
        lambda size: b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size + b"0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
def test_a_body_is_not_a_head(body_of: Callable[[int], bytes]) -> None:
    """A body of many times the limit is taken, also where most of it is framing."""
    size = 4 * HEAD_BYTES_MAX
    wire, _ = talk([b"POST / HTTP/1.1\r\nHost: x\r\n" + body_of(size)])

    assert wire.written.startswith(b"HTTP/1.1 200 OK")
    assert wire.written.endswith(str(size).encode())


def test_what_is_not_http_is_refused_without_being_repeated() -> None:
    """What the parser hands to `send_400_response` is answered with a problem document as well."""
    wire, _ = talk([b"canary-user\r\n\r\n"])

    status, document = refusal(wire)
    assert (400, "bad_request") == (status, document["code"])
    assert b"canary" not in wire.written
    assert wire.closed


def test_a_refusal_never_lands_inside_another_answer() -> None:
    """While an answer is under way the connection is closed and nothing is added."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"9")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await receive()
        await receive()

    async def run() -> Wire:
        config = uvicorn.Config(slow, ws="none", lifespan="off", log_config=None)
        protocol, wire = BoundedHttpProtocol(config, ServerState(), {}), Wire()
        protocol.connection_made(wire)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.data_received(b"no http\r\n\r\n")
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)
        return wire

    wire = asyncio.run(run())

    assert wire.written.endswith(b"\r\n\r\npart")
    assert wire.closed
