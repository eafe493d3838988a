"""API keys."""

import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau.domain import Scope
from dpdau.errors import InvalidSettingError, NotFoundError
from dpdau.ledger import Ledger
from dpdau.ledger.keys import LABEL_LENGTH_MAX, OVERLAP_MAX
from simulation.ledger_cases import NOW, file_of, open_ledger, raw_rows

LATER = NOW + dt.timedelta(days=30)
DAY = dt.timedelta(days=1)


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
        "rate_limit": None,
        "replaced_by": None,
        "last_used": None,
    } == shown.to_json()


def test_a_key_is_replaced_without_a_moment_between(ledger: Ledger) -> None:
    """The new key is valid at once and may the same; the old one is until the overlap ends."""
    key_id, text = ledger.keys.create("app", [Scope.READ], None, rate_limit="50/minute")
    old, new, successor = ledger.keys.rotate(key_id, overlap=DAY, actor="ada")
    now = new.created_at

    assert (key_id, new.key_id, now + DAY) == (old.key_id, old.replaced_by, old.expires_at)
    assert ("app", {Scope.READ}, None, "50/minute") == (
        new.label,
        new.scopes,
        new.expires_at,
        new.rate_limit,
    )
    last = now + DAY - dt.timedelta(microseconds=1)
    both = [ledger.keys.authenticate(one, last) for one in (text, successor)]
    assert [key_id, new.key_id] == [one.key_id for one in both if one is not None]
    assert ledger.keys.authenticate(text, now + DAY) is None
    assert ledger.keys.authenticate(successor, now + DAY) is not None
    replaced = ledger.audit_log()[-1]
    facts = {"key_id": key_id, "successor": new.key_id, "ends_at": replaced.facts["ends_at"]}
    assert ("ada", "key_replaced", "key", facts) == (
        replaced.actor,
        replaced.action,
        replaced.kind,
        replaced.facts,
    )
    assert successor not in str(ledger.audit_log())
    assert ledger.verify().ok


def test_a_successor_lives_as_long_as_the_old_key_was_to(ledger: Ledger) -> None:
    """Its time begins anew unless an end is named; and an overlap makes no key live longer."""
    key_id, _ = ledger.keys.create("app", [Scope.READ], LATER)
    (before,) = ledger.keys.list()
    old, new, _ = ledger.keys.rotate(key_id, overlap=dt.timedelta(days=60))
    _, named, _ = ledger.keys.rotate(new.key_id, overlap=dt.timedelta(), expires_at=LATER)

    assert LATER == old.expires_at
    assert new.expires_at is not None
    assert LATER - before.created_at == new.expires_at - new.created_at
    assert LATER == named.expires_at


def test_what_cannot_be_replaced_is_refused(ledger: Ledger) -> None:
    """A key that is not there, has ended or has a successor, and an overlap out of range."""
    ended, _ = ledger.keys.create("ended", [Scope.READ], None)
    ledger.keys.revoke(ended)
    twice, _ = ledger.keys.create("twice", [Scope.READ], None)
    successor = ledger.keys.rotate(twice, overlap=DAY)[1].key_id
    keys = len(ledger.keys.list())

    with pytest.raises(NotFoundError, match="'nobody'"):
        ledger.keys.rotate("nobody", overlap=DAY)
    for key_id, overlap, message in (
        (ended, DAY, "at its end"),
        (twice, DAY, f"replaced by {successor}: rotate that one"),
        (successor, -DAY, "overlap"),
        (successor, OVERLAP_MAX + DAY, "overlap"),
    ):
        with pytest.raises(InvalidSettingError, match=message):
            ledger.keys.rotate(key_id, overlap=overlap)
    with pytest.raises(InvalidSettingError, match="future"):
        ledger.keys.rotate(successor, overlap=DAY, expires_at=NOW)
    assert keys == len(ledger.keys.list())


@pytest.mark.parametrize(
    "limit", ["", "100", "0/second", "5/week", "5 per day", "1e3/day", "-1/day"]
)
def test_a_limit_that_is_none_is_refused(ledger: Ledger, limit: str) -> None:
    """It would be read at each request."""
    with pytest.raises(InvalidSettingError, match="100/second"):
        ledger.keys.create("app", [Scope.READ], None, rate_limit=limit)


def test_the_hour_of_the_last_use_never_goes_back(ledger: Ledger) -> None:
    """It is no entry of the chain, and an earlier one changes nothing."""
    one, other = (ledger.keys.create(name, [Scope.READ], None)[0] for name in ("a", "b"))
    entries = ledger.verify().entries
    for hour in (LATER, NOW, LATER + DAY, LATER):
        ledger.keys.note_uses({one: hour})

    assert [LATER + DAY, None] == [key.last_used for key in ledger.keys.list()]
    assert other == ledger.keys.list()[1].key_id
    assert (entries, True) == (ledger.verify().entries, ledger.verify().ok)
