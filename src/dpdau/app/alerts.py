"""Alerts about security and budgets, by webhook and by e-mail; nothing that runs waits for them.

An alert names what happened, never a user, and no number that was not released. Each is a line of
the log too, which is where it is looked for if nobody could be reached.
"""

import datetime as dt
import email.message
import hashlib
import hmac
import http.client
import json
import smtplib
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partialmethod
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from dpdau.app.cutting import Limit, limited
from dpdau.domain import Clock
from dpdau.settings import Settings
from dpdau.telemetry import log

PERIOD_SECONDS: Final = 3600.0
"""Of one kind, one alert at most is sent in this time; the next one says how many there were."""
QUEUE_MAX: Final = 256
OTHERS_MAX: Final = 20
"""Of what is held back, the facts of so many are in the message that follows."""
ATTEMPTS_MAX: Final = 6
SEND_SECONDS_MAX: Final = 10.0
"""What one delivery may take, from the first byte to the last."""
CLOSE_SECONDS_MAX: Final = 3.0
SIGNATURE_HEADER: Final = "X-Dpdau-Signature"
RUNBOOK: Final = "docs/runbook.md"
_SMTP_PORTS: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_AGAIN_STATUSES: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_LOG = log("alerts")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of alert says: how bad, in one sentence, and where the runbook has it."""

    severity: str
    summary: str
    section: str


_SPENT: Final = "of a month's budget for numbers on demand is spent"
KINDS: Final = {
    "budget_50": Kind("info", f"Half {_SPENT}.", "budget-exhausted"),
    "budget_80": Kind("warning", f"80 % {_SPENT}.", "budget-exhausted"),
    "budget_95": Kind("critical", f"95 % {_SPENT}.", "budget-exhausted"),
    "budget_exhausted": Kind(
        "critical", "A number was refused, because its budget is spent.", "budget-exhausted"
    ),
    "budget_granted": Kind(
        "warning", "A budget got one more allowance; its guarantee is weaker.", "budget-exhausted"
    ),
    "key_created": Kind("info", "An API key was made.", "key-rotation"),
    "strong_key_created": Kind(
        "warning", "An API key was made that may erase users, or administer.", "key-rotation"
    ),
    "card_key_created": Kind(
        "warning", "The key that signs privacy cards was made, or replaced.", "key-rotation"
    ),
    "key_revoked": Kind("info", "An API key was revoked.", "key-rotation"),
    "bad_keys": Kind(
        "warning", "Many requests came without a valid API key.", "suspected-privacy-breach"
    ),
    "exact_read": Kind("warning", "Exact, private counts were read.", "suspected-privacy-breach"),
    "unsafe_debug": Kind(
        "critical",
        "The service was started with --unsafe-debug: it answers with exact counts.",
        "suspected-privacy-breach",
    ),
    "restored": Kind("warning", "A backup was put in place.", "backups-and-restore-drill"),
    "ledger_broken": Kind(
        "critical", "The ledger does not verify: stop, and keep all files.", "corrupt-store"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message.

    Attributes:
        kind: A key of `KINDS`.
        at: When it happened, or was noticed.
        facts: JSON-ready; what the audit log says of it.
        more: How many others of its kind there were since the last message.
        others: The facts of those, of `OTHERS_MAX` at most.
        tokens: What its sender knows it and those by; see `Alerts.undelivered`.
    """

    kind: str
    at: dt.datetime
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: int = 0
    others: tuple[Mapping[str, Any], ...] = ()
    tokens: tuple[Hashable, ...] = ()

    def with_another(self, later: "Alert") -> "Alert":
        """This one, which tells of a later one too."""
        return replace(
            self,
            more=self.more + 1,
            others=(*self.others, later.facts)[:OTHERS_MAX],
            tokens=self.tokens + later.tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """What is posted; `text` is what chat programs show."""
        about = KINDS[self.kind]
        more = f" And {self.more} more." if self.more else ""
        return {
            "text": f"dpdau: {about.summary}{more}",
            "kind": self.kind,
            "severity": about.severity,
            "summary": about.summary,
            "at": self.at.isoformat(),
            "facts": dict(self.facts),
            "more": self.more,
            "others": [dict(one) for one in self.others],
            "runbook": f"{RUNBOOK}#{about.section}",
        }


class UndeliveredError(Exception):
    """A message was not taken.

    Args:
        reason: Why, without the address.
        again: Whether it may be taken later.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


Send = Callable[[Alert], None]
"""Delivers one alert, or raises `UndeliveredError`."""


class Alerts:
    """Takes alerts from any thread and has them delivered by threads of its own.

    Guarantee: `post` neither waits nor raises. Of one kind and subject one message leaves in
    `PERIOD_SECONDS`; what came meanwhile is one message afterwards, which has the facts of each, up
    to a bound, and says how many there were. Each is a line of the log at once.

    Args:
        outlets: Who delivers, by name.
        clock: What time it is.
        seconds: Seconds that never go back.
        pause: Waits so many seconds before a further attempt; True where the end came meanwhile.
    """

    def __init__(
        self,
        outlets: Mapping[str, Send],
        *,
        clock: Clock,
        seconds: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, str], tuple[float, Alert | None]] = {}
        self._undelivered: Counter[Hashable] = Counter()
        self._outlets = [
            _Outlet(name, send, pause, self._delivered) for name, send in outlets.items()
        ]

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock) -> Self:
        """Alerts to where the settings say; to the log alone where they say nothing."""
        outlets: dict[str, Send] = {}
        if (url := settings.ALERT_WEBHOOK_URL) is not None:
            secret = settings.ALERT_WEBHOOK_SECRET
            key = None if secret is None else secret.get_secret_value().encode()
            outlets["webhook"] = Webhook(url.get_secret_value(), key).send
        if settings.ADMIN_EMAIL is not None:
            assert settings.SMTP_URL is not None, "the settings ask for both"
            outlets["mail"] = Mail(settings.SMTP_URL.get_secret_value(), settings.ADMIN_EMAIL).send
        return cls(outlets, clock=clock)

    def post(
        self,
        kind: str,
        facts: Mapping[str, Any] | None = None,
        *,
        subject: str = "",
        at: dt.datetime | None = None,
        token: Hashable = None,
    ) -> None:
        """Has one alert sent, now or with those that follow.

        Args:
            kind: A key of `KINDS`.
            facts: What is known of it, without anything private.
            subject: What it is about, where one kind is about several things: a budget.
            at: When it happened; now by default.
            token: What it is in `undelivered` until every outlet has delivered it.
        """
        assert kind in KINDS, f"{kind} is a kind of alert"
        tokens = () if token is None else (token,)
        alert = Alert(kind=kind, at=at or self._clock(), facts=facts or {}, tokens=tokens)
        _LOG.warning("alert", kind=kind, severity=KINDS[kind].severity, facts=dict(alert.facts))
        with self._lock:
            for one in tokens if self._outlets else ():
                self._undelivered[one] += len(self._outlets)
            until, held = self._sent.get((kind, subject), (0.0, None))
            now = self._seconds()
            if now < until:
                held = alert if held is None else held.with_another(alert)
                self._sent[kind, subject] = (until, held)
                return
            self._sent[kind, subject] = (now + PERIOD_SECONDS, None)
        self._send(alert)

    def undelivered(self) -> frozenset[Hashable]:
        """The tokens of what some outlet has not delivered: it waits, or was given up."""
        with self._lock:
            return frozenset(self._undelivered)

    def tend(self) -> None:
        """Sends what was held back, once its time is over; to be called now and then."""
        due = []
        with self._lock:
            now = self._seconds()
            for key, (until, held) in list(self._sent.items()):
                if until > now:
                    continue
                del self._sent[key]
                if held is not None:
                    self._sent[key] = (now + PERIOD_SECONDS, None)
                    due.append(held)
        for alert in due:
            self._send(alert)

    def close(self) -> None:
        """Sends what waits, also what was held back, without a second attempt.

        Guarantee: it takes `CLOSE_SECONDS_MAX` at most, however many outlets hang.
        """
        with self._lock:
            held = [alert for _until, alert in self._sent.values() if alert is not None]
            self._sent.clear()
        for alert in held:
            self._send(alert)
        ends = time.monotonic() + CLOSE_SECONDS_MAX
        for outlet in self._outlets:
            outlet.end()
        for outlet in self._outlets:
            outlet.join(max(0.0, ends - time.monotonic()))

    def _send(self, alert: Alert) -> None:
        for outlet in self._outlets:
            outlet.put(alert)

    def _delivered(self, alert: Alert) -> None:
        """Notes that one outlet has delivered an alert."""
        with self._lock:
            for token in alert.tokens:
                self._undelivered[token] -= 1
            self._undelivered = +self._undelivered


class _Outlet:
    """One way out: a bounded queue, and a thread that tries again."""

    def __init__(
        self,
        name: str,
        send: Send,
        pause: Callable[[threading.Event, float], bool],
        delivered: Callable[[Alert], None],
    ) -> None:
        self._name = name
        self._deliver = send
        self._pause = pause
        self._delivered = delivered
        self._waiting: deque[Alert] = deque()
        self._any = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"alerts {name}", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        """Queues one; where nobody takes them, the oldest is dropped, which the log says."""
        while len(self._waiting) >= QUEUE_MAX:
            with suppress(IndexError):
                self._given_up(self._waiting.popleft(), "the queue is full")
        self._waiting.append(alert)
        self._any.set()

    def end(self) -> None:
        """Has the thread try what waits once, and end."""
        self._end.set()
        self._any.set()

    def join(self, seconds: float) -> None:
        """Waits for its end, so long at most."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not (self._end.is_set() and not self._waiting):
            self._any.wait()
            self._any.clear()
            while self._waiting:
                self._try(self._waiting.popleft())

    def _try(self, alert: Alert) -> None:
        """Delivers one, in as many attempts as it needs and may have."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                self._deliver(alert)
            except UndeliveredError as error:
                reason, again = str(error), error.again
            except Exception as error:  # noqa: BLE001 - the outermost loop of a worker.
                reason, again = type(error).__qualname__, False
            else:
                self._delivered(alert)
                return
            if not again or attempt == ATTEMPTS_MAX or self._pause(self._end, 2.0**attempt):
                break
        self._given_up(alert, reason)

    def _given_up(self, alert: Alert, reason: str) -> None:
        facts = [dict(alert.facts), *map(dict, alert.others)]
        _LOG.error(
            "alert not delivered", outlet=self._name, kind=alert.kind, reason=reason, facts=facts
        )


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts alerts as JSON, signed where there is a key; follows no redirection.

    The signature is `sha256=` and the HMAC-SHA-256 of the body, in hex.
    """

    url: str
    key: bytes | None = field(default=None, repr=False)

    def send(self, alert: Alert) -> None:
        """Delivers one alert.

        Raises:
            UndeliveredError: It was not taken.
        """
        body = json.dumps(alert.to_json()).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "dpdau"}
        if self.key is not None:
            signature = hmac.digest(self.key, body, hashlib.sha256).hex()
            headers[SIGNATURE_HEADER] = f"sha256={signature}"
        # The settings let https pass, and http to this machine.
        request = urllib.request.Request(self.url, body, headers, method="POST")  # noqa: S310
        try:
            # Not by a library that logs addresses: this one may hold a secret.
            with (
                limited(SEND_SECONDS_MAX) as limit,
                _opener(request.type, limit).open(request, timeout=SEND_SECONDS_MAX),
            ):
                return
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        except (OSError, http.client.HTTPException) as error:
            raise UndeliveredError(type(error).__qualname__, again=True) from None
        again = status >= _SERVER_ERROR or status in _AGAIN_STATUSES
        raise UndeliveredError(f"status {status}", again=again)


def _opener(scheme: str, limit: Limit) -> urllib.request.OpenerDirector:
    """What speaks HTTP and follows no redirection: an alert goes where the settings say.

    Plain HTTP goes to this machine, so by no proxy; https goes by the one of the environment.
    """

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            limit.watch(self.sock)

    class Secure(http.client.HTTPSConnection, Plain):
        pass

    class PlainHandler(urllib.request.HTTPHandler):
        http_open = partialmethod(urllib.request.HTTPHandler.do_open, Plain)

    class SecureHandler(urllib.request.HTTPSHandler):
        https_open = partialmethod(urllib.request.HTTPSHandler.do_open, Secure)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if scheme == "http" else None),
        PlainHandler(),
        SecureHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass(frozen=True, slots=True)
class Mail:
    """Sends alerts by SMTP, under the account of the server or in the name of the recipient."""

    url: str = field(repr=False)
    recipient: str

    def send(self, alert: Alert) -> None:
        """Delivers one alert.

        Raises:
            UndeliveredError: It was not taken.
        """
        parts = urlsplit(self.url)
        assert parts.hostname is not None, "the settings ask for a host"
        port = parts.port or _SMTP_PORTS[parts.scheme]
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        sender = user if "@" in user else self.recipient
        context = None if parts.scheme == "smtp" else ssl.create_default_context()
        try:
            with (
                limited(SEND_SECONDS_MAX) as limit,
                _server(parts.scheme, parts.hostname, port, context, limit) as server,
            ):
                if parts.scheme == "smtp+starttls":
                    server.starttls(context=context)
                if user:
                    server.login(user, password)
                server.send_message(_message(alert, sender, self.recipient))
        except smtplib.SMTPAuthenticationError as error:
            raise UndeliveredError(f"status {error.smtp_code}", again=False) from None
        except (smtplib.SMTPException, OSError) as error:
            raise UndeliveredError(type(error).__qualname__, again=True) from None


def _server(
    scheme: str, host: str, port: int, context: ssl.SSLContext | None, limit: Limit
) -> smtplib.SMTP:
    """A connection to the mail server."""

    class Plain(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            # The only place before the server's greeting, which may drip too.
            made: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
            return limit.watch(made)

    class Secure(smtplib.SMTP_SSL, Plain):
        pass

    if scheme == "smtps":
        return Secure(host, port, timeout=SEND_SECONDS_MAX, context=context)
    return Plain(host, port, timeout=SEND_SECONDS_MAX)


def _message(alert: Alert, sender: str, recipient: str) -> email.message.EmailMessage:
    """An alert as a letter."""
    told = alert.to_json()
    lines: Sequence[str] = (
        told["text"],
        "",
        f"when: {told['at']}",
        *(f"{name}: {json.dumps(value)}" for name, value in told["facts"].items()),
        *(f"also: {json.dumps(other)}" for other in told["others"]),
        "",
        f"What to do: {told['runbook']}",
    )
    message = email.message.EmailMessage()
    message["From"], message["To"] = sender, recipient
    message["Subject"] = f"[dpdau] {told['severity']}: {told['summary']}"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(lines))
    return message
