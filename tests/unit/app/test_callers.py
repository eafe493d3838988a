"""Who sends a request, what that writes down, and whose name the audit log has."""

import datetime as dt
from pathlib import Path

import pytest

from dpdau.app.callers import BOOTSTRAP_CALLER, Callers
from dpdau.domain import Scope, acting
from dpdau.errors import LedgerUnavailableError, NotAuthenticatedError
from dpdau.ledger.keys import ApiKeys
from in_process import service
from products import API_KEY, DAY, NOW, event, product, send

HOUR = NOW.replace(minute=0)


def test_a_use_is_written_down_once_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking a key up writes nothing; what could not be written down is the next time."""
    written: list[dict[str, dt.datetime]] = []
    noted = ApiKeys.note_uses

    def note(keys: ApiKeys, hours: dict[str, dt.datetime]) -> None:
        written.append(dict(hours))
        if len(written) == 1:
            raise LedgerUnavailableError("Expected a disk with room.")
        noted(keys, hours)

    monkeypatch.setattr(ApiKeys, "note_uses", note)
    with product(tmp_path) as app:
        key_id, text = app.ledger.keys.create("app", [Scope.READ], None)
        now = [NOW.replace(minute=7)]
        callers = Callers(app.settings.SERVICE_API_KEY, app.ledger.keys, lambda: now[0])
        for _ in range(3):
            assert (key_id, "app") == (callers.identify(text).key_id, callers.identify(text).name)
        assert [] == written
        with pytest.raises(LedgerUnavailableError):
            callers.write_uses()
        for minute in (8, 59):
            now[0] = NOW.replace(minute=minute)
            callers.identify(text)
            callers.write_uses()
        now[0] = NOW + dt.timedelta(hours=1)
        callers.identify(text)
        callers.close()

        assert [{key_id: HOUR}] * 2 + [{key_id: now[0].replace(minute=0)}] == written
        assert [now[0].replace(minute=0)] == [key.last_used for key in app.ledger.keys.list()]
        with pytest.raises(NotAuthenticatedError):
            callers.identify(None)
        assert BOOTSTRAP_CALLER == callers.identify(API_KEY)


def test_a_service_notes_uses_and_keeps_a_key_to_its_limit(tmp_path: Path) -> None:
    """A key with a limit of its own is refused after it; others are not, and all were used."""
    with product(tmp_path) as app:
        for name, limit in (("less", "1/hour"), ("as all", None), ("never", None)):
            _, key = app.ledger.keys.create(name, [Scope.READ], None, rate_limit=limit)
            if name == "never":
                continue
            with service(app, key) as http:
                found = [http.get("/version") for _ in range(2)]
            expected = [200, 429] if limit else [200, 200]
            assert expected == [answer.status_code for answer in found]
            if limit:
                assert "0" == found[0].headers["ratelimit-remaining"]
        app.callers.write_uses()

        assert [HOUR, HOUR, None] == [key.last_used for key in app.ledger.keys.list()]


def test_the_audit_log_names_who_asked(tmp_path: Path) -> None:
    """A stored key by its label and id, the bootstrap key, a command, the clock; and no user."""
    month = {"RELEASE_POLICY": "plan"}
    with product(tmp_path, now=dt.datetime(2026, 4, 3, tzinfo=dt.UTC), **month) as app:
        send(app, [event("secret-user-1"), event("secret-user-2")])
        key_id, text = app.ledger.keys.create("support", [Scope.ERASE, Scope.RELEASE], None)
        with service(app, text) as http:
            assert 202 == http.delete("/users/secret-user-1").status_code
            assert 200 == http.get(f"/dau/{DAY}").status_code
        with service(app) as http:
            assert 202 == http.delete("/users/secret-user-2").status_code
        with acting("ada"):
            app.grant("dau", DAY, reason="audit")
        app.abandon_month("2026-03", reason="moved")
        app.take_due()
        log = [one for one in app.ledger.audit_log() if one.kind != "pseudonym-key"]

    support = f"support ({key_id})"
    assert [
        ("operator", "key", "key_created"),
        (support, "erasure", "erase"),
        (support, "plan", "plan_opened"),
        ("bootstrap", "erasure", "erase"),
        ("ada", "grant", "budget_granted"),
        ("operator", "plan", "plan_abandoned"),
        ("schedule", "plan", "plan_opened"),
    ] == [(one.actor, one.kind, one.action) for one in log]
    assert "secret-user" not in str(log)


def test_what_unsafe_debug_shows_is_in_the_audit_log(tmp_path: Path) -> None:
    """Each exact value that left is named before it does; the value itself is not."""
    with product(tmp_path, unsafe_debug=True) as app:
        send(app, [event(f"user-{number}") for number in range(73)])
        with service(app, unsafe_debug=True) as http:
            assert 73 == http.get(f"/dau/{DAY}").json()["exact_value"]
        (read,) = [one for one in app.ledger.audit_log() if one.kind == "exact"]

    assert ("bootstrap", "unsafe-debug") == (read.actor, read.facts["reason"])
    assert "73" not in str(read.facts)
