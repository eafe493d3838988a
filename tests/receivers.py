"""What hears from the product: a web server and a mail server on loopback that keep what comes."""

import base64
import queue
import socketserver
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAIT_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Posted:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


class WebSink:
    """A web server that answers posts with given statuses, the last one for ever."""

    def __init__(self, statuses: Sequence[int]) -> None:
        self.posted: queue.Queue[Posted] = queue.Queue()
        self._statuses = list(statuses)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = sink._statuses.pop(0) if len(sink._statuses) > 1 else sink._statuses[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", sink.url)
                self.send_header("Content-Length", "0")
                self.end_headers()
                sink.posted.put(Posted(self.path, headers, body))

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def next(self) -> Posted:
        """The next request that comes."""
        return self.posted.get(timeout=WAIT_SECONDS_MAX)


@contextmanager
def web_sink(*statuses: int) -> Iterator[WebSink]:
    """A web server for the length of a test."""
    sink = WebSink(statuses or (200,))
    with _served(sink.server):
        yield sink


@contextmanager
def dripping(first: bytes = b"") -> Iterator[int]:
    """A server that never ends what it says: a byte at a time, as often as nobody gives up."""
    ends = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.sendall(first)
                while not ends.wait(0.05):
                    self.request.sendall(b"2")

    with _served(server := socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)):
        server.daemon_threads = True
        yield server.server_address[1]
        ends.set()


@dataclass
class MailSink:
    """A mail server that takes every letter; with a certificate it offers STARTTLS.

    Attributes:
        letters: What came, as it was sent.
        logins: Who logged in, as `user:password`, with whether it was under TLS.
        refused: How many letters are refused for now, before one is taken.
    """

    certificate: Path | None = None
    refused: int = 0
    letters: "queue.Queue[str]" = field(default_factory=queue.Queue)
    logins: list[tuple[str, bool]] = field(default_factory=list)
    port: int = 0

    def next(self) -> str:
        """The next letter that comes."""
        return self.letters.get(timeout=WAIT_SECONDS_MAX)


@contextmanager
def mail_sink(certificate: Path | None = None, *, refused: int = 0) -> Iterator[MailSink]:
    """A mail server for the length of a test."""
    sink = MailSink(certificate, refused)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with closing(_Conversation(sink, self)) as held, suppress(OSError):
                # A client that does not trust the certificate hangs up.
                held.hold()

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    sink.port = server.server_address[1]
    with _served(server):
        yield sink


class _Conversation:
    """One connection of SMTP, as far as a client needs it."""

    def __init__(self, sink: MailSink, handler: socketserver.StreamRequestHandler) -> None:
        self._sink = sink
        self._socket: Any = handler.connection
        self._lines = handler.connection.makefile("rb")
        self._is_secure = False

    def hold(self) -> None:
        self._say("220 here")
        while line := self._lines.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "QUIT":
                self._say("221 bye")
                return
            self._answer(word, line)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _answer(self, word: str, line: str) -> None:
        if word == "EHLO":
            offers = ["AUTH PLAIN"] if self._is_secure else []
            offers += ["STARTTLS"] if self._sink.certificate and not self._is_secure else []
            self._say("250-here", *(f"250-{one}" for one in offers), "250 SIZE 1000000")
        elif word == "STARTTLS":
            self._say("220 go on")
            assert self._sink.certificate is not None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._sink.certificate)
            self._socket = context.wrap_socket(self._socket, server_side=True)
            self._lines = self._socket.makefile("rb")
            self._is_secure = True
        elif word == "AUTH":
            _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
            self._sink.logins.append((f"{user}:{password}", self._is_secure))
            self._say("235 welcome")
        elif word == "MAIL" and self._sink.refused > 0:
            self._sink.refused -= 1
            self._say("451 later")
        elif word == "DATA":
            self._say("354 end with a dot")
            letter = []
            while (part := self._lines.readline().decode()) != ".\r\n":
                letter.append(part)
            self._sink.letters.put("".join(letter))
            self._say("250 taken")
        else:
            self._say("250 fine")

    def _say(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    """Serves on a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
