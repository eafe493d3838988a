"""API keys."""

import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau.domain import Scope
from dpdau.errors import InvalidSettingError, NotFoundError
from dpdau.ledger import Ledger
from dpdau.ledger.keys import LABEL_LENGTH_MAX
from simulation.ledger_cases import NOW, file_of, open_ledger, raw_rows

LATER = NOW + dt.timedelta(days=30)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    one = open_ledger(tmp_path)
    yield one
    one.close()


def test_a_key_is_known_by_its_text(ledger: Ledger) -> None:
    """The text that was shown once authenticates, with its scopes and label."""
    key_id, text = ledger.keys.create("phone app", [Scope.READ, Scope.RELEASE], LATER)

    known = ledger.keys.authenticate(text, NOW)

    assert known is not None
    assert (key_id, "phone app", LATER, None) == (
        known.key_id,
        known.label,
        known.expires_at,
        known.revoked_at,
    )
    assert {Scope.READ, Scope.RELEASE} == known.scopes


def test_the_secret_is_not_stored(ledger: Ledger, tmp_path: Path) -> None:
    """The file holds SHA-256 of 32 random bytes, and neither the secret nor the key."""
    _, text = ledger.keys.create("ci", [Scope.READ], None)
    secret = text.rpartition("_")[2]
    ledger.close()

    assert 32 == len(bytes.fromhex(secret))
    assert secret.encode() not in file_of(tmp_path).read_bytes()
    assert [(hashlib.sha256(secret.encode()).hexdigest(),)] == raw_rows(
        tmp_path, "SELECT hash FROM api_keys"
    )


def test_keys_differ(ledger: Ledger) -> None:
    """Two keys share neither id nor secret."""
    first, second = (ledger.keys.create("ci", [Scope.READ], None) for _ in range(2))

    assert first[0] != second[0]
    assert first[1].rpartition("_")[2] != second[1].rpartition("_")[2]


def test_a_wrong_text_is_nobody(ledger: Ledger) -> None:
    """A changed secret, another key's secret, an unknown id and any other text are refused."""
    (one, text), (_, other) = (ledger.keys.create("ci", [Scope.ADMIN], None) for _ in range(2))
    secret = text.rpartition("_")[2]
    flipped = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    wrong = [
        "",
        "dpdau",
        secret,
        f"dpdau_{one}_{flipped}",
        f"dpdau_{one}_{other.rpartition('_')[2]}",
        f"dpdau_{'0' * 16}_{secret}",
        f"dpdau_{one}_{secret}\n",
        f" {text}",
        text.upper(),
        f"dpdau_{one}_",
        "dpdau_" + "é" * 16 + "_" + secret,
        "x" * 100_000,
    ]

    assert [None] * len(wrong) == [ledger.keys.authenticate(bad, NOW) for bad in wrong]
    assert ledger.keys.authenticate(text, NOW) is not None


def test_a_key_expires(ledger: Ledger) -> None:
    """A key works until the instant of its expiry, and not at it."""
    _, text = ledger.keys.create("ci", [Scope.READ], LATER)

    assert ledger.keys.authenticate(text, LATER - dt.timedelta(microseconds=1)) is not None
    assert ledger.keys.authenticate(text, LATER) is None


def test_a_revoked_key_is_nobody(ledger: Ledger) -> None:
    """A key ends at once, once; a second revocation keeps the first instant."""
    key_id, text = ledger.keys.create("ci", [Scope.READ], None)

    first, second = ledger.keys.revoke(key_id), ledger.keys.revoke(key_id, actor="ada")

    assert ledger.keys.authenticate(text, NOW) is None
    assert first == second
    assert [first] == list(ledger.keys.list())


def test_an_unknown_key_cannot_be_revoked(ledger: Ledger) -> None:
    """A wrong id is an error, and not a silent success."""
    with pytest.raises(NotFoundError, match="'nobody'"):
        ledger.keys.revoke("nobody")


@pytest.mark.parametrize(
    ("label", "scopes", "expires_at", "message"),
    [
        ("ci", [], None, "at least one scope"),
        ("", [Scope.READ], None, "label"),
        ("x" * (LABEL_LENGTH_MAX + 1), [Scope.READ], None, "label"),
        ("ci", [Scope.READ], NOW, "future"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    ledger: Ledger, label: str, scopes: list[Scope], expires_at: dt.datetime | None, message: str
) -> None:
    """No scope, no label, too long a label and a past expiry are named."""
    with pytest.raises(InvalidSettingError, match=message):
        ledger.keys.create(label, scopes, expires_at)

    assert () == ledger.keys.list()


@pytest.mark.parametrize("scope", Scope)
def test_admin_may_do_everything(ledger: Ledger, scope: Scope) -> None:
    """`admin` implies each scope; `ingest` allows itself alone."""
    texts = [ledger.keys.create("k", [one], None)[1] for one in (Scope.ADMIN, Scope.INGEST)]
    admin, ingest = (ledger.keys.authenticate(text, NOW) for text in texts)

    assert admin is not None
    assert ingest is not None
    assert (True, scope is Scope.INGEST) == (admin.allows(scope), ingest.allows(scope))


def test_changes_of_keys_are_audited(ledger: Ledger) -> None:
    """Making and ending a key are in the audit log, without the secret."""
    key_id, text = ledger.keys.create("ci", [Scope.READ], None, actor="ada")
    ledger.keys.revoke(key_id)

    made, ended = ledger.audit_log()

    assert ("ada", "key_created", {"key_id": key_id, "label": "ci", "scopes": ["read"]}) == (
        made.actor,
        made.action,
        made.facts,
    )
    assert ("operator", "key_revoked", {"key_id": key_id}) == (
        ended.actor,
        ended.action,
        ended.facts,
    )
    assert text not in str((made, ended))


def test_list_shows_no_secret(ledger: Ledger) -> None:
    """What is listed has a JSON form, and the hash is not part of it."""
    key_id, _ = ledger.keys.create("ci", [Scope.READ, Scope.INGEST], LATER)

    (shown,) = ledger.keys.list()

    assert {
        "key_id": key_id,
        "label": "ci",
        "scopes": ["ingest", "read"],
        "created_at": shown.created_at.isoformat(),
        "expires_at": LATER.isoformat(),
        "revoked_at": None,
    } == shown.to_json()
