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
_SETTLE_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 20.0
_LOADS: Final = {
    "batches of 1000": ("--batch", "1000", "--connections", "16"),
    "batches of 100": ("--batch", "100", "--connections", "16"),
    "single events": ("--batch", "1", "--connections", "64"),
}
_SECONDS: Final = "8"
_QUIET_CPU_SECONDS: Final = 0.05
_READS: Final = "20"


def measure(dpdau: str, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Each load for some seconds, with reads of a stored release beside it."""
    found: dict[str, Any] = {"bare": _bare()}
    for name, options in _LOADS.items():
        inside = folder / name.replace(" ", "-")
        inside.mkdir()
        settings = {"DATA_DIR": str(inside / "data"), "RELEASE_POLICY": "on_demand"}
        with _serving(dpdau, inside, {**environment, **settings}) as (url, process):
            _buy(url, environment["SERVICE_API_KEY"])
            _settle(process.pid)
            done = _load(url, environment["SERVICE_API_KEY"], options)
            found[name] = {**done, "rss_mb": _rss_mb(process.pid)}
    return found


def _bare() -> dict[str, Any]:
    """The same loads on the least that a service must do, for the speed of this machine."""
    port = _free_port()
    bare = Path(__file__).parent / "rivals" / "bare_http.py"
    process = subprocess.Popen(
        [sys.executable, str(bare), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}/version", process)
        return {name: _load(url, "none", options) for name, options in _LOADS.items()}
    finally:
        process.terminate()
        process.wait(60)


def _load(url: str, key: str, options: tuple[str, ...]) -> dict[str, Any]:
    """One load for some seconds."""
    command = [sys.executable, "-m", "benchmarks.http", "--url", url, "--api-key", key]
    command += ["--seconds", _SECONDS, "--reads", _READS, *options]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


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
    port = _free_port()
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
        _wait(f"{url}/readyz", process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until the service answers."""
    until = time.perf_counter() + _STARTS_WITHIN_SECONDS
    while time.perf_counter() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
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


def _settle(pid: int) -> None:
    """Waits until the service has loaded what its first reader made it load."""
    before = -1.0
    while (now := _cpu_seconds(pid)) - before > _QUIET_CPU_SECONDS:
        before = now
        time.sleep(1.0)


def _rss_mb(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return round(pages * _PAGE / 1e6)


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
