"""A service of its own for a load test: a fresh key, demo data, a scratch folder, loopback."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

DEMO_DAY = "1997-03-31"
START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
POLL_SECONDS = 0.2
PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH")
DPDAU = (sys.executable, "-m", "dpdau")
PREPARED = (("init",), ("ingest", "--from", "cdnow"), ("mau", "--end", DEMO_DAY))


class StartError(Exception):
    """The service did not come up."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where it is and how to get in."""

    url: str
    api_key: str


@contextmanager
def service(scratch: Path, log: Path) -> Iterator[Service]:
    """A service over a scratch folder, stopped by its process id in any case.

    Raises:
        StartError: It did not answer in `START_SECONDS_MAX`; the log says why.
    """
    # No setting of the machine reaches it: neither a data directory nor a key.
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with open(log, "w") as sink:
        for command in PREPARED:
            made = subprocess.run(
                [*DPDAU, *command], cwd=scratch, env=environment, stdout=sink, stderr=sink
            )
            if made.returncode != 0:
                raise StartError(f"dpdau {command[0]} failed; see {log}.")
        key = tomllib.loads((scratch / "dpdau.toml").read_text())["SERVICE_API_KEY"]
        port = free_port()
        process = subprocess.Popen(
            [*DPDAU, "serve", "--port", str(port)],
            cwd=scratch,
            env=environment,
            stdout=sink,
            stderr=sink,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield Service(url, key)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Returns once the service can write.

    Raises:
        StartError: It ended, or took too long.
    """
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)
    raise StartError(f"The service did not start; see {log}.")
