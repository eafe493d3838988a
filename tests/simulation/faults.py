"""Disks that run full, and connections that break."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from products import API_KEY
from simulation.served import NO_LIMIT, Service


class Disk:
    """A place for a data directory whose space runs out when told to.

    A small file system of its own where this process may mount one. Elsewhere the size of the files
    of the running service is limited, so that a write that lets one grow fails in the same way.
    """

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder = folder
        self.mounted = mounted
        self._filler = folder / "filler"

    def fill(self, service: Service) -> None:
        """Leaves no space."""
        if not self.mounted:
            service.limit_writes(0)
            return
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def free(self, service: Service) -> None:
        """Gives the space back."""
        if not self.mounted:
            service.limit_writes(NO_LIMIT)
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, mebibytes: int = 24) -> Iterator[Disk]:
    """A disk for the length of a test."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and _mount(
        "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)
    )
    try:
        yield Disk(folder, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def cut(service: Service, path: str, body: bytes, *, sent: int, key: str) -> None:
    """Sends the first bytes of a request with a JSON body, and closes without hearing anything.

    Args:
        service: Where to.
        path: The route.
        body: The whole body.
        sent: How many bytes of it leave; all of them for a request that the service can take.
        key: Its `Idempotency-Key`.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Idempotency-Key: {key}\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", service.port))) as connection:
        connection.sendall(head.encode() + body[:sent])


def _mount(*arguments: str) -> bool:
    """Whether a file system could be mounted here."""
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
