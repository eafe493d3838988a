"""The service as a process of its own: idle, and under the load of `benchmarks.http`."""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STARTS_WITHIN_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 15.0
_IDLE_SECONDS: Final = 30.0
_LOADS: Final = {
    "batches of 1000": ("--batch", "1000", "--connections", "16"),
    "batches of 100": ("--batch", "100", "--connections", "16"),
    "single events": ("--batch", "1", "--connections", "64"),
}
_SECONDS: Final = "15"
_READS: Final = "20"


def measure(dpdau: str, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Each load for some seconds, with reads of a stored release beside it."""
    found = {}
    for name, options in _LOADS.items():
        inside = folder / name.replace(" ", "-")
        inside.mkdir()
        settings = {"DATA_DIR": str(inside / "data"), "RELEASE_POLICY": "on_demand"}
        with _serving(dpdau, inside, {**environment, **settings}) as (url, process):
            _buy(url, environment["SERVICE_API_KEY"])
            command = [sys.executable, "-m", "benchmarks.http", "--url", url]
            command += ["--api-key", environment["SERVICE_API_KEY"], "--seconds", _SECONDS]
            command += ["--reads", _READS, *options]
            done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
            found[name] = {**json.loads(done.stdout), "rss_mb": _rss_mb(process.pid)}
    return found


def idle(dpdau: str, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Memory and share of a core while nobody asks for anything."""
    with _serving(dpdau, folder, environment) as (_url, process):
        time.sleep(_SETTLE_SECONDS)
        before, began = _cpu_seconds(process.pid), time.perf_counter()
        time.sleep(_IDLE_SECONDS)
        used = _cpu_seconds(process.pid) - before
        return {
            "rss_mb": _rss_mb(process.pid),
            "cpu_percent": round(100 * used / (time.perf_counter() - began), 2),
        }


@contextmanager
def _serving(
    dpdau: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service on a free port of this machine, stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [dpdau, "serve", "--port", str(port)],
            cwd=folder,
            env=dict(environment),
            stdout=log,
            stderr=log,
        )
    try:
        _wait(url, process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until the service answers."""
    until = time.perf_counter() + _STARTS_WITHIN_SECONDS
    while time.perf_counter() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError("Expected the service to answer, found that it does not.")


def _buy(url: str, key: str) -> None:
    """Takes the release that is read again and again."""
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=4)
    asked = urllib.request.Request(f"{url}/dau/{day}", headers={"X-API-Key": key})
    with urllib.request.urlopen(asked, timeout=60):
        pass


def _rss_mb(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return round(pages * _PAGE / 1e6)


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
