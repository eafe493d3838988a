"""An end for everything that is said on a connection, however slowly the other side says it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Limit:
    """Cuts connections off when their time is over: a server that drips bytes meets no timeout."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[socket.socket] = []
        self._is_over = False

    def watch(self, connection: socket.socket) -> socket.socket:
        """Has a connection cut off with the others."""
        with self._lock:
            # A second name for it, which outlives that TLS is put around the first one.
            self._known.append(connection.dup())
        if self._is_over:
            self.cut()
        return connection

    def cut(self) -> None:
        """Cuts all of them off: whoever reads or writes there gets an error."""
        self._is_over = True
        with self._lock:
            for one in self._known:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Leaves them alone."""
        with self._lock:
            for one in self._known:
                one.close()
            self._known.clear()


@contextmanager
def limited(seconds: float) -> Iterator[Limit]:
    """The time that everything inside may take on its connections."""
    limit = Limit()
    timer = threading.Timer(seconds, limit.cut)
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
        limit.forget()
