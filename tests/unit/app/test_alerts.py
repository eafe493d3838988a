"""Alerts leave once, signed, by HTTPS and by mail; nothing waits for them."""

import datetime as dt
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable
from email import message_from_string
from pathlib import Path

import pytest

from dpdau.app.alerts import (
    ATTEMPTS_MAX,
    KINDS,
    OTHERS_MAX,
    PERIOD_SECONDS,
    QUEUE_MAX,
    SIGNATURE_HEADER,
    Alert,
    Alerts,
    Mail,
    UndeliveredError,
    Webhook,
)
from in_process import captured_logs
from products import NOW, product_settings
from receivers import dripping, mail_sink, web_sink
from trust import throw_away_trust

SECRET = "a-secret-of-the-receiver"


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """An outlet that keeps what it is given, and fails as often as it is told."""

    def __init__(self, failures: int = 0, *, again: bool = True) -> None:
        self.alerts: list[Alert] = []
        self.tries = 0
        self._failures = failures
        self._again = again

    def __call__(self, alert: Alert) -> None:
        self.tries += 1
        if self.tries <= self._failures:
            raise UndeliveredError("status 503", again=self._again)
        self.alerts.append(alert)


def no_pause(_end: threading.Event, _seconds: float) -> bool:
    """Tries again at once."""
    return False


def alerts_to(outlet: Callable[[Alert], None], hands: Callable[[], float] | None = None) -> Alerts:
    """Alerts to one outlet."""
    return Alerts({"kept": outlet}, clock=lambda: NOW, seconds=hands or Hands(), pause=no_pause)


def test_one_of_a_kind_leaves_in_a_period() -> None:
    """The first leaves at once, the others as one afterwards, which says how many there were."""
    kept, hands = Kept(), Hands()
    alerts = alerts_to(kept, hands)
    for label in ("one", "two", "three", "four"):
        alerts.post("key_created", {"label": label})
    alerts.tend()
    hands.now += PERIOD_SECONDS
    alerts.tend()
    alerts.tend()
    hands.now += PERIOD_SECONDS
    alerts.tend()
    alerts.post("key_created", {"label": "five"})
    alerts.close()

    assert [("one", 0), ("two", 2), ("five", 0)] == [
        (one.facts["label"], one.more) for one in kept.alerts
    ]
    assert [{"label": "three"}, {"label": "four"}] == kept.alerts[1].to_json()["others"]


def test_what_is_held_back_is_bounded_and_in_the_log() -> None:
    """A flood is one message with the first facts; each of it is a line of the log."""
    kept = Kept()
    with captured_logs() as logs:
        alerts = alerts_to(kept)
        for number in range(OTHERS_MAX + 10):
            alerts.post("key_created", {"number": number}, token=number)
        alerts.close()

    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert list(range(OTHERS_MAX + 10)) == [line["facts"]["number"] for line in lines]
    assert (OTHERS_MAX + 8, OTHERS_MAX) == (kept.alerts[1].more, len(kept.alerts[1].others))
    assert frozenset() == alerts.undelivered()


def test_what_was_not_delivered_is_known() -> None:
    """Until it is delivered, held back or given up, its token is there."""
    kept = Kept(1, again=False)
    alerts = alerts_to(kept)
    alerts.post("exact_read", token=7)
    alerts.post("exact_read", token=8)
    before = alerts.undelivered()
    alerts.close()

    assert {7, 8} == before | {7}
    assert {7} == alerts.undelivered()


def test_kinds_and_subjects_do_not_hold_each_other_back() -> None:
    """Two budgets, and two kinds, are told at once."""
    kept = Kept()
    alerts = alerts_to(kept)
    alerts.post("budget_50", subject="dau:2026-03")
    alerts.post("budget_50", subject="mau:2026-03")
    alerts.post("exact_read")
    alerts.close()

    assert ["budget_50", "budget_50", "exact_read"] == [one.kind for one in kept.alerts]


def test_what_was_held_back_leaves_at_the_end() -> None:
    """A service that is closed within the period keeps nothing to itself."""
    kept = Kept()
    alerts = alerts_to(kept)
    for _ in range(3):
        alerts.post("exact_read")
    alerts.close()

    assert [0, 1] == [one.more for one in kept.alerts]


@pytest.mark.parametrize(
    ("failures", "again", "tries", "taken"),
    [(2, True, 3, 1), (1, False, 1, 0), (ATTEMPTS_MAX, True, ATTEMPTS_MAX, 0)],
)
def test_a_refused_alert_is_tried_again(failures: int, again: bool, tries: int, taken: int) -> None:
    """What may pass later is tried so many times; what is given up is a line of the log."""
    kept = Kept(failures, again=again)
    with captured_logs() as logs:
        alerts = alerts_to(kept)
        alerts.post("exact_read")
        alerts.close()

    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert (tries, taken) == (kept.tries, len(kept.alerts))
    assert (1 - taken) == sum(line["event"] == "alert not delivered" for line in lines)
    assert ["exact_read"] == [line["kind"] for line in lines if line["event"] == "alert"]


def test_nobody_waits_for_an_outlet_that_hangs() -> None:
    """While a delivery does not end, posting returns and what waits is bounded."""
    goes_on, began = threading.Event(), threading.Event()
    taken: list[Alert] = []

    def hanging(alert: Alert) -> None:
        began.set()
        goes_on.wait(30)
        taken.append(alert)

    with captured_logs() as logs:
        alerts = alerts_to(hanging)
        alerts.post("exact_read")
        assert began.wait(30)
        for number in range(2 * QUEUE_MAX):
            alerts.post("budget_50", subject=str(number))
        goes_on.set()
        alerts.close()

    assert 1 + QUEUE_MAX == len(taken)
    assert QUEUE_MAX == logs.getvalue().count("the queue is full")


def test_the_webhook_is_json_and_signed() -> None:
    """A post says what, when and what to do, and proves who sent it."""
    with web_sink() as sink:
        alert = Alert(kind="budget_granted", at=NOW, facts={"reason": "board"}, more=2)
        Webhook(f"{sink.url}/hook", SECRET.encode()).send(alert)
        posted = sink.next()
    told = json.loads(posted.body)
    signature = hmac.digest(SECRET.encode(), posted.body, hashlib.sha256).hex()

    assert "/hook" == posted.path
    assert f"sha256={signature}" == posted.headers[SIGNATURE_HEADER.lower()]
    assert ("budget_granted", "warning", 2) == (told["kind"], told["severity"], told["more"])
    assert {"reason": "board"} == told["facts"]
    assert NOW == dt.datetime.fromisoformat(told["at"])
    assert told["text"].startswith("dpdau: ") and told["text"].endswith("And 2 more.")


def test_without_a_secret_there_is_no_signature() -> None:
    """A receiver that shares no secret gets none."""
    with web_sink() as sink:
        Webhook(sink.url).send(Alert(kind="exact_read", at=NOW))
        posted = sink.next()

    assert SIGNATURE_HEADER.lower() not in posted.headers


@pytest.mark.parametrize(
    ("status", "again"), [(302, False), (404, False), (429, True), (500, True), (503, True)]
)
def test_a_webhook_that_refuses(status: int, again: bool) -> None:
    """A redirection is not followed; what may pass is told from what will not."""
    with web_sink(status) as sink, captured_logs() as logs:
        logging.getLogger("httpx").setLevel(logging.DEBUG)
        with pytest.raises(UndeliveredError) as raised:
            Webhook(sink.url).send(Alert(kind="exact_read", at=NOW))
        sink.next()

        assert sink.posted.empty()
    # The address of a chat is a secret.
    assert sink.url not in logs.getvalue()
    assert again is raised.value.again
    assert sink.url not in str(raised.value)


def test_nobody_listens_at_the_webhook() -> None:
    """It is tried again, and the error does not name the address."""
    with web_sink() as sink:
        url = sink.url
    with pytest.raises(UndeliveredError, match=r"^URLError$") as raised:
        Webhook(url).send(Alert(kind="exact_read", at=NOW))

    assert raised.value.again


def test_plain_http_goes_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays on this machine, whatever the environment has for others."""
    with web_sink() as proxy, web_sink() as sink:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        Webhook(f"{sink.url}/secret").send(Alert(kind="exact_read", at=NOW))

        assert "/secret" == sink.next().path
        assert proxy.posted.empty()


@pytest.mark.parametrize("scheme", ["http", "https", "smtp", "smtps"])
def test_a_server_that_drips_bytes_is_left(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps every timeout away; the delivery ends all the same."""
    monkeypatch.setattr("dpdau.app.alerts.SEND_SECONDS_MAX", 0.5)
    first = b"\x16\x03\x03\x40\x00" if scheme in ("https", "smtps") else b""
    with dripping(first) as port:
        outlet = (
            Webhook(f"{scheme}://127.0.0.1:{port}")
            if scheme.startswith("http")
            else Mail(f"{scheme}://127.0.0.1:{port}", "ops@example.org")
        )
        with pytest.raises(UndeliveredError) as raised:
            outlet.send(Alert(kind="exact_read", at=NOW))

    assert raised.value.again


def test_outlets_that_hang_are_left_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits once, and not once for each of them."""
    monkeypatch.setattr("dpdau.app.alerts.CLOSE_SECONDS_MAX", 0.2)
    goes_on, joined = threading.Event(), []
    outlets = {str(number): lambda _alert: goes_on.wait(30) and None for number in range(3)}
    alerts = Alerts(outlets, clock=lambda: NOW)
    for one in alerts._outlets:
        monkeypatch.setattr(one, "join", joined.append)
    alerts.post("exact_read")
    alerts.close()
    goes_on.set()

    assert 3 == len(joined)
    assert 0.2 >= joined[0] >= joined[1] >= joined[2] >= 0


def test_a_letter_says_what_to_do() -> None:
    """A letter has a subject, the facts, and the section of the runbook."""
    with mail_sink(refused=1) as sink:
        outlet = Mail(f"smtp://127.0.0.1:{sink.port}", "ops@example.org")
        alerts = alerts_to(outlet.send)
        alerts.post("key_created", {"label": "web\nBcc: eve@example.org", "key_id": "00ff"})
        letter = message_from_string(sink.next())
        alerts.close()
    body = letter.get_payload()

    assert "[dpdau] info: An API key was made." == letter["Subject"]
    assert "ops@example.org" == letter["To"] == letter["From"]
    assert letter["Bcc"] is None
    assert 'key_id: "00ff"' in body
    assert "docs/runbook.md#key-rotation" in body


def test_mail_is_sent_under_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With smtp+starttls the password leaves under TLS alone, to a server that proves itself."""
    authority = throw_away_trust(tmp_path)
    with mail_sink(tmp_path / "server.pem") as sink:
        url = f"smtp+starttls://dp%40example.org:p%40ss@127.0.0.1:{sink.port}"
        with pytest.raises(UndeliveredError, match="SSLCertVerificationError"):
            Mail(url, "ops@example.org").send(Alert(kind="exact_read", at=NOW))
        before = list(sink.logins)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        Mail(url, "ops@example.org").send(Alert(kind="exact_read", at=NOW))
        letter = message_from_string(sink.next())

    assert [] == before
    assert [("dp@example.org:p@ss", True)] == sink.logins
    assert "dp@example.org" == letter["From"]


def test_a_password_waits_for_tls() -> None:
    """A server that offers no STARTTLS, or had it taken out, gets neither password nor letter."""
    with mail_sink() as sink:
        url = f"smtp+starttls://user:password@127.0.0.1:{sink.port}"
        with pytest.raises(UndeliveredError):
            Mail(url, "ops@example.org").send(Alert(kind="exact_read", at=NOW))

        assert [] == sink.logins
        assert sink.letters.empty()


def test_settings_say_where_alerts_go(tmp_path: Path) -> None:
    """With both settings one alert goes to both; with none to the log alone."""
    with web_sink() as web, mail_sink() as mail:
        settings = product_settings(
            tmp_path,
            ALERT_WEBHOOK_URL=web.url,
            ALERT_WEBHOOK_SECRET=SECRET,
            ADMIN_EMAIL="ops@example.org",
            SMTP_URL=f"smtp://localhost:{mail.port}",
        )
        alerts = Alerts.of(settings, clock=lambda: NOW)
        alerts.post("unsafe_debug")
        posted, letter = web.next(), mail.next()
        alerts.close()
    Alerts.of(product_settings(tmp_path), clock=lambda: NOW).close()

    assert "unsafe_debug" == json.loads(posted.body)["kind"]
    assert "critical" in letter


def test_every_kind_has_its_place() -> None:
    """Each kind says how bad it is in words that rules use too."""
    assert {"info", "warning", "critical"} == {one.severity for one in KINDS.values()}
