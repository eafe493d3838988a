"""Load on a running service: events by POST and a stored release by GET, in one JSON line.

It keeps some connections open and has one request under way on each. Bodies are made before the
clock starts, so what is measured is the service. The raw sockets cost about a fifth of what a
client library does, because the generator usually shares its machine with the service.
"""

import argparse
import asyncio
import collections
import datetime as dt
import itertools
import json
import platform
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

POOL_EVENTS = 400_000
"""Events made beforehand; the bodies are sent again after that."""
USERS = 1_000_000
REMOVED_SHARE = 0.01
READ_WAIT_SECONDS = 5.0
SEED = 20260315


def main() -> None:
    """Runs the load and prints one JSON line."""
    options = _options()
    print(json.dumps(uvloop.run(_run(options))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--batch", type=int, default=100, help="events a request; 1: POST /event")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds that are not counted")
    parser.add_argument(
        "--reads", type=float, default=0.0, help="GETs of a stored release a second"
    )
    return parser.parse_args()


@dataclass(slots=True)
class Tally:
    """What came back within the measured time."""

    latencies: list[float] = field(default_factory=list)
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)

    def percentile_ms(self, percent: float) -> float | None:
        """The nearest-rank percentile, in ms; None where nothing came back."""
        if not self.latencies:
            return None
        ranked = sorted(self.latencies)
        place = min(int(len(ranked) * percent / 100), len(ranked) - 1)
        return round(ranked[place] * 1000, 2)


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way; reads answers with a length."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        """The connection is there."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        names = bytes(self._received[:head]).lower()
        at = names.find(b"content-length:") + len(b"content-length:")
        end = head + 4 + int(names[at:].partition(b"\r\n")[0])
        if len(self._received) < end or self._answer is None:
            return
        answer, self._answer = self._answer, None
        body = bytes(self._received[head + 4 : end])
        del self._received[:end]
        if not answer.done():
            answer.set_result((int(names[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """The service closed it."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed by the service"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends a request; its status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()


async def _connect(url: str) -> Connection:
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(Connection, place.hostname, place.port or 80)
    return made


def _head(options: argparse.Namespace, method: str, path: str, *more: str) -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1",
        f"Host: {urlsplit(options.url).netloc}",
        f"X-API-Key: {options.api_key}",
        *more,
    )
    return "\r\n".join([*lines, "", ""]).encode()


def _posts(options: argparse.Namespace) -> Iterator[bytes]:
    """Whole requests, for ever: the same pool of them over and over."""
    seeded = random.Random(SEED)
    today = dt.datetime.now(dt.UTC).date()
    days = [(today - dt.timedelta(days=back)).isoformat() for back in range(3)]

    def one() -> dict[str, Any]:
        return {
            "user_id": f"user-{seeded.randrange(USERS):08d}",
            "op": "-" if seeded.random() < REMOVED_SHARE else "+",
            "day": seeded.choices(days, (8, 1, 1))[0],
            "metadata": {"platform": seeded.choice(("ios", "web"))},
        }

    def request() -> bytes:
        if options.batch == 1:
            path, kind, body = "/event", "application/json", json.dumps({"event": one()}).encode()
        else:
            path, kind = "/events", "application/x-ndjson"
            body = "\n".join(json.dumps(one()) for _ in range(options.batch)).encode()
        sized = f"Content-Length: {len(body)}"
        return _head(options, "POST", path, f"Content-Type: {kind}", sized) + body

    sizes = min(max(POOL_EVENTS // options.batch, 1), 20_000)
    return itertools.cycle([request() for _ in range(sizes)])


async def _write(connection: Connection, posts: Iterator[bytes], tally: Tally, end: float) -> None:
    """One request after the other, until the end."""
    while (start := time.perf_counter()) < end:
        status, body = await connection.ask(next(posts))
        tally.latencies.append(time.perf_counter() - start)
        tally.statuses[status] += 1
        if status == 429:
            await asyncio.sleep(json.loads(body).get("retry_after_seconds", 1))


async def _read(connection: Connection, get: bytes, every: float, tally: Tally, end: float) -> None:
    """The same request at a steady pace; waiting behind a slow one counts, as for a user."""
    due = time.perf_counter()
    while due < end:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        status, _ = await asyncio.wait_for(connection.ask(get), READ_WAIT_SECONDS)
        tally.latencies.append(time.perf_counter() - due)
        tally.statuses[status] += 1
        due += every


async def _stored_release(connection: Connection, options: argparse.Namespace) -> bytes:
    """The request for a release that is stored already, so that reading it charges nothing."""
    status, body = await connection.ask(_head(options, "GET", "/releases?limit=1"))
    rows = json.loads(body).get("releases", []) if status == 200 else []
    if not rows:
        sys.exit("Expected a stored release for --reads, found none; take one first.")
    day, window = rows[0]["day"], rows[0]["window_days"]
    paths = {"dau": f"/dau/{day}", "wau": f"/wau?end={day}"}
    path = paths.get(rows[0]["metric"], f"/mau?end={day}&window={window}")
    return _head(options, "GET", path)


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    posts = _posts(options)
    control = await _connect(options.url)
    status, version = await control.ask(_head(options, "GET", "/version"))
    if status != 200:
        sys.exit(f"Expected GET /version to answer 200, found {status}.")
    get = await _stored_release(control, options) if options.reads else b""
    writers = [await _connect(options.url) for _ in range(options.connections)]
    for seconds, tallies in (
        (options.warm_up, (Tally(), Tally())),
        (options.seconds, measured := (Tally(), Tally())),
    ):
        started = time.perf_counter()
        end = started + seconds
        load = [_write(one, posts, tallies[0], end) for one in writers]
        if options.reads:
            load.append(_read(control, get, 1 / options.reads, tallies[1], end))
        await asyncio.gather(*load)
        took = time.perf_counter() - started
    for one in (*writers, control):
        one.close()
    writes, reads = measured
    return {
        "workload": "http_ingest",
        "service": json.loads(version)["version"],
        "python": platform.python_version(),
        "batch": options.batch,
        "connections": options.connections,
        "seconds": round(took, 2),
        "events_per_second": round(writes.statuses[202] * options.batch / took),
        "requests_per_second": round(writes.statuses.total() / took),
        "errors": writes.statuses.total() - writes.statuses[202],
        "statuses": {str(code): count for code, count in sorted(writes.statuses.items())},
        "write_p50_ms": writes.percentile_ms(50),
        "write_p99_ms": writes.percentile_ms(99),
        "reads": reads.statuses.total(),
        "read_errors": reads.statuses.total() - reads.statuses[200],
        "read_p50_ms": reads.percentile_ms(50),
        "read_p99_ms": reads.percentile_ms(99),
    }


if __name__ == "__main__":
    main()
