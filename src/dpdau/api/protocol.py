"""HTTP/1.1 with a limit on everything that is not body: the parser alone has none.

It would gather a request line, a header or a trailer of any size in memory, before a key is looked
at, and in time that grows with the square of the size.
"""

from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dpdau.api.bodies import WHOLE_SCOPE_KEY
from dpdau.api.problems import PROBLEM_MEDIA_TYPE, problem_of_status
from dpdau.api.traffic import ANSWER_HEADERS
from dpdau.telemetry import log

HEAD_BYTES_MAX: Final = 64 << 10
PIECE_BYTES: Final = 16 << 10
_LOG = log("api")


class BoundedHttpProtocol(HttpToolsProtocol):
    """The server's protocol, which refuses a head or trailer above `HEAD_BYTES_MAX`.

    Guarantee: a head or trailer of up to `HEAD_BYTES_MAX` is taken; of a larger one at most
    `HEAD_BYTES_MAX + PIECE_BYTES` bytes are looked at. Then the connection gets 431 and is closed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unread_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Hands the bytes on in pieces, and counts those that led to nothing so far."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._unread_bytes += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._unread_bytes > HEAD_BYTES_MAX:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body, which has its own limit."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._unread_bytes = 0
        if self.cycle is not None:
            cast(dict[str, Any], self.cycle.scope)[WHOLE_SCOPE_KEY] = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is refused like everything else, with a problem document."""
        self._refuse(HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers where no other answer is under way, and closes."""
        _LOG.warning("refused", status=int(status))
        is_answering = self.cycle is not None and (
            self.cycle.response_started and not self.cycle.response_complete
        )
        if not self.pipeline and not is_answering:
            self.transport.write(_answer(status))
        self.transport.close()


def _answer(status: HTTPStatus) -> bytes:
    """A whole answer, as the layers above are not reached."""
    body = bytes(problem_of_status(status).body)
    headers = {
        **ANSWER_HEADERS,
        "Content-Type": PROBLEM_MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {int(status)} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
