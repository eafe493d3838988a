"""Sessions of browsers: a signed text that stands for an API key, and is stored nowhere here.

All replicas of a deployment have the same secret, so a session of one is one of all. The API key
itself is not in it. What a session may do is looked up at each request, so a key that is revoked or
expires ends its sessions at once; so does another `SERVICE_API_KEY` for those of the old one.
Only a session that was ended by hand is noted, in the memory of the process that was asked to.
"""

import base64
import datetime as dt
import hmac
import secrets
import threading
from typing import Final

from dpdau.app.callers import BOOTSTRAP_CALLER
from dpdau.app.product import App
from dpdau.app.wiring import secret_of
from dpdau.domain import Caller

SESSION_SECONDS: Final = 12 * 3600
ANONYMOUS_SECONDS: Final = 3600
SESSION_LENGTH_MAX: Final = 256
_LABEL: Final = b"dpdau: sessions of browsers, 1"
_BOOTSTRAP: Final = "bootstrap"
_ANONYMOUS: Final = "anonymous"
_NONCE_BYTES: Final = 18
ENDED_MAX: Final = 10_000
"""Sessions that were ended by hand and are not over; of more, those that end first are dropped."""


class Sessions:
    """Makes and reads sessions.

    Guarantee: who does not have the secret of the deployment cannot make a session, and whoever
    has one learns nothing of an API key from it.

    Args:
        app: The product.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._ended: dict[str, int] = {}
        self._key = hmac.digest(secret_of(app.settings), _LABEL, "sha256")

    def begin(self, api_key: str, *, place: str) -> str:
        """A session for an API key that is valid.

        Args:
            api_key: The key.
            place: Where the session is kept, the name of the cookie; it is good nowhere else.

        Raises:
            NotAuthenticatedError: The key is unknown, expired or revoked.
        """
        caller = self._app.authenticate(api_key)
        return self._made(caller.key_id or _BOOTSTRAP, SESSION_SECONDS, place)

    def anonymous(self, *, place: str) -> str:
        """A session of nobody, which a form needs that is sent before there is a session."""
        return self._made(_ANONYMOUS, ANONYMOUS_SECONDS, place)

    def is_anonymous(self, text: str | None, *, place: str) -> bool:
        """Whether a text is a session of nobody that is not over."""
        return self._opened(text, place) == _ANONYMOUS

    def resume(self, text: str | None, *, place: str) -> Caller | None:
        """Whose session a text is; None where it is none, is over, or its key is."""
        key_id = self._opened(text, place)
        if key_id is None or key_id == _ANONYMOUS:
            return None
        if key_id == _BOOTSTRAP:
            return BOOTSTRAP_CALLER
        return self._app.callers.again(key_id)

    def end(self, text: str | None, *, place: str) -> None:
        """Ends a session before its time, for this process; what is none is let pass."""
        if text is None or self._opened(text, place) is None:
            return
        body = text.rpartition(".")[0]
        now = self._app.calendar.clock().timestamp()
        with self._lock:
            kept = sorted((ends, one) for one, ends in self._ended.items() if now < ends)
            self._ended = {one: ends for ends, one in kept[-(ENDED_MAX - 1) :]}
            self._ended[body] = _end_of(body)

    def form_token(self, text: str) -> str:
        """What a form of this session carries, so that no other page can send one."""
        return _text(hmac.digest(self._key, f"form:{text}".encode(), "sha256"))

    def is_form_token(self, text: str | None, found: str, *, place: str) -> bool:
        """Whether a form was made for this session, of somebody or of nobody."""
        if text is None or self._opened(text, place) is None:
            return False
        return hmac.compare_digest(self.form_token(text).encode(), found.encode())

    def _made(self, key_id: str, seconds: int, place: str) -> str:
        ends = self._app.calendar.clock() + dt.timedelta(seconds=seconds)
        body = f"{key_id}.{int(ends.timestamp())}.{secrets.token_urlsafe(_NONCE_BYTES)}"
        return f"{body}.{self._seal(body, place)}"

    def _opened(self, text: str | None, place: str) -> str | None:
        """The key id of a session that is whole and not over, or None."""
        if text is None or len(text) > SESSION_LENGTH_MAX or not text.isascii():
            return None
        body, _, seal = text.rpartition(".")
        if not hmac.compare_digest(self._seal(body, place).encode(), seal.encode()):
            return None
        is_over = body in self._ended or _end_of(body) <= self._app.calendar.clock().timestamp()
        return None if is_over else body.partition(".")[0]

    def _seal(self, body: str, place: str) -> str:
        """The signature; that of the bootstrap key's sessions is over the key too."""
        bootstrap = self._app.settings.SERVICE_API_KEY
        under = ""
        if bootstrap is not None and body.startswith(f"{_BOOTSTRAP}."):
            under = bootstrap.get_secret_value()
        sealed = "\0".join(("session", place, body, under))
        return _text(hmac.digest(self._key, sealed.encode(), "sha256"))


def _end_of(body: str) -> int:
    """When a session that this deployment signed is over."""
    return int(body.split(".")[1])


def _text(digest: bytes) -> str:
    """Bytes for a cookie or a form."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
