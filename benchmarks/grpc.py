"""Load on a running service: batches of events over streams of gRPC, in one JSON line.

`python -m benchmarks.grpc` keeps some streams open, with a few requests under way on each. It sends
the events of `benchmarks.http`. Requests are made before the clock starts, so what is measured is
the service.
"""

import argparse
import datetime as dt
import itertools
import json
import platform
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator

import grpc

from benchmarks.http import POOL_EVENTS, REMOVED_SHARE, SEED, USERS, Tally
from dpdau.domain import day_number
from dpdau.rpc.v1 import dpdau_pb2 as v1

INGEST = "/dpdau.v1.Dpdau/Ingest"
VERSION = "/dpdau.v1.Dpdau/Version"


def main() -> None:
    """Runs the load and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--form", choices=["columns", "list"], default="columns")
    parser.add_argument("--batch", type=int, default=1000, help="events a request")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=16, help="requests of a stream at once")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds that are not counted")
    print(json.dumps(_run(parser.parse_args())))


def _requests(options: argparse.Namespace) -> list[bytes]:
    """Whole requests, which are sent over and over."""
    seeded = random.Random(SEED)
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=back) for back in range(3)]

    def request() -> bytes:
        n = options.batch
        users = [f"user-{seeded.randrange(USERS):08d}" for _ in range(n)]
        ops = [v1.OP_REMOVE if seeded.random() < REMOVED_SHARE else v1.OP_ADD for _ in users]
        when = seeded.choices(days, (8, 1, 1), k=n)
        platforms = ["", "ios", "web"]
        codes = [seeded.choice((1, 2)) for _ in users]
        if options.form == "columns":
            columns = v1.EventColumns(
                user_id=users,
                op=ops,
                day=map(day_number, when),
                labels={"platform": v1.Labels(values=platforms[1:], codes=codes)},
            )
            return v1.IngestRequest(columns=columns).SerializeToString()
        events = [
            v1.Event(
                user_id=user,
                op=op,
                day=day.isoformat(),
                metadata={"platform": platforms[code]},
            )
            for user, op, day, code in zip(users, ops, when, codes, strict=True)
        ]
        return v1.IngestRequest(list=v1.EventList(events=events)).SerializeToString()

    return [request() for _ in range(max(POOL_EVENTS // options.batch, 1))]


def _stream(
    channel: grpc.Channel, requests: Iterator[bytes], options: argparse.Namespace, end: float
) -> list[float]:
    """The latencies of one stream that goes on until the end."""
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(options.in_flight):
        room.put(None)
    sent: deque[float] = deque()

    def sending() -> Iterator[bytes]:
        while time.perf_counter() < end:
            room.get()
            sent.append(time.perf_counter())
            yield next(requests)

    latencies = []
    call = channel.stream_stream(INGEST)(sending(), metadata=[("x-api-key", options.api_key)])
    for content in call:
        latencies.append(time.perf_counter() - sent.popleft())
        assert v1.IngestReply.FromString(content).received == options.batch
        room.put(None)
    return latencies


def _run(options: argparse.Namespace) -> dict[str, object]:
    pool = itertools.cycle(_requests(options))
    channels = [
        grpc.insecure_channel(options.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(options.streams)
    ]
    key = [("x-api-key", options.api_key)]
    version = v1.VersionReply.FromString(channels[0].unary_unary(VERSION)(b"", metadata=key))
    for seconds in (options.warm_up, options.seconds):
        tally = Tally()
        started = time.perf_counter()
        end = started + seconds

        def run(channel: grpc.Channel, tally: Tally = tally, end: float = end) -> None:
            tally.latencies += _stream(channel, pool, options, end)

        threads = [threading.Thread(target=run, args=(channel,)) for channel in channels]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        took = time.perf_counter() - started
    for channel in channels:
        channel.close()
    return {
        "workload": "grpc_ingest",
        "service": version.version,
        "python": platform.python_version(),
        "form": options.form,
        "batch": options.batch,
        "streams": options.streams,
        "in_flight": options.in_flight,
        "seconds": round(took, 2),
        "events_per_second": round(len(tally.latencies) * options.batch / took),
        "requests_per_second": round(len(tally.latencies) / took),
        "write_p50_ms": tally.percentile_ms(50),
        "write_p99_ms": tally.percentile_ms(99),
    }


if __name__ == "__main__":
    main()
