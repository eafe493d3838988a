"""Sessions: nobody makes one without the secret; each ends with its time, key or place."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.app.sessions import SESSION_SECONDS, Sessions
from dpdau.domain import Scope
from dpdau.errors import NotAuthenticatedError
from products import API_KEY, NOW, ZeroNoise, product_settings

PLACE = "cookie"
OTHER_KEY = "another-bootstrap-key-of-the-tests"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[App, list[dt.datetime]]]:
    """A product whose clock the test moves."""
    now = [NOW]
    app = App.open(product_settings(tmp_path), clock=lambda: now[0], noise=ZeroNoise())
    with app.closing():
        yield app, now


@pytest.fixture
def app(opened: tuple[App, list[dt.datetime]]) -> App:
    """The product alone."""
    return opened[0]


def test_a_session_stands_for_its_key(app: App) -> None:
    """It has the label and the scopes of the key, and nothing of the key itself."""
    key_id, key = app.ledger.keys.create("readers", [Scope.READ], None)

    text = Sessions(app).begin(key, place=PLACE)
    caller = Sessions(app).resume(text, place=PLACE)

    assert caller is not None
    assert ("readers", {Scope.READ}, key_id) == (caller.name, caller.scopes, caller.key_id)
    assert key.rpartition("_")[2] not in text


def test_an_unknown_key_begins_none(app: App) -> None:
    """A session is for a valid key alone."""
    with pytest.raises(NotAuthenticatedError):
        Sessions(app).begin("no key", place=PLACE)


def test_a_revoked_key_ends_its_sessions_at_once(app: App) -> None:
    """Nothing of it is kept for a moment."""
    key_id, key = app.ledger.keys.create("readers", [Scope.READ], None)
    text = Sessions(app).begin(key, place=PLACE)

    app.ledger.keys.revoke(key_id)

    assert Sessions(app).resume(text, place=PLACE) is None


def test_an_expired_key_ends_its_sessions(opened: tuple[App, list[dt.datetime]]) -> None:
    """Also before the session is over by itself."""
    app, now = opened
    _, key = app.ledger.keys.create("readers", [Scope.READ], NOW + dt.timedelta(minutes=5))
    text = Sessions(app).begin(key, place=PLACE)

    now[0] += dt.timedelta(minutes=5)

    assert Sessions(app).resume(text, place=PLACE) is None


def test_a_session_lasts_twelve_hours(opened: tuple[App, list[dt.datetime]]) -> None:
    """To the second before its end, and not at its end."""
    app, now = opened
    text = Sessions(app).begin(API_KEY, place=PLACE)

    now[0] += dt.timedelta(seconds=SESSION_SECONDS - 1)
    before = Sessions(app).resume(text, place=PLACE)
    now[0] += dt.timedelta(seconds=1)

    assert before is not None and before.name == "bootstrap"
    assert Sessions(app).resume(text, place=PLACE) is None


def test_an_ended_session_is_over_in_this_process(app: App) -> None:
    """It alone, and its form; what is none ends nothing."""
    sessions = Sessions(app)
    one, other = (sessions.begin(API_KEY, place=PLACE) for _ in range(2))
    token = sessions.form_token(one)

    for text in (one, None, "forged", other + "x"):
        sessions.end(text, place=PLACE)

    assert sessions.resume(one, place=PLACE) is None
    assert not sessions.is_form_token(one, token, place=PLACE)
    assert sessions.resume(other, place=PLACE) is not None


def test_ended_sessions_are_forgotten_when_they_are_over(
    opened: tuple[App, list[dt.datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is bounded: those that would end first go first."""
    app, now = opened
    monkeypatch.setattr("dpdau.app.sessions.ENDED_MAX", 2)
    sessions, made = Sessions(app), []
    for _ in range(3):
        made.append(sessions.begin(API_KEY, place=PLACE))
        sessions.end(made[-1], place=PLACE)
        now[0] += dt.timedelta(seconds=1)
    resumed = [sessions.resume(one, place=PLACE) is not None for one in made]
    now[0] += dt.timedelta(seconds=SESSION_SECONDS)
    sessions.end(sessions.begin(API_KEY, place=PLACE), place=PLACE)

    assert [True, False, False] == resumed
    assert 1 == len(sessions._ended)


def test_another_bootstrap_key_ends_sessions_of_the_old_one(app: App, tmp_path: Path) -> None:
    """A replica with another `SERVICE_API_KEY` does not take them; one with the same does."""
    text = Sessions(app).begin(API_KEY, place=PLACE)
    _, stored = app.ledger.keys.create("readers", [Scope.READ], None)
    of_stored = Sessions(app).begin(stored, place=PLACE)
    app.settings = product_settings(tmp_path / "replica", SERVICE_API_KEY=OTHER_KEY)

    assert Sessions(app).resume(text, place=PLACE) is None
    assert Sessions(app).resume(of_stored, place=PLACE) is not None


def test_another_secret_takes_none(app: App, tmp_path: Path) -> None:
    """The secret of the deployment is what signs."""
    text = Sessions(app).begin(API_KEY, place=PLACE)
    app.settings = product_settings(
        tmp_path / "other", HASH_SALT_SECRET="b64:" + "QUJDREVGR0hJSg" * 4
    )

    assert Sessions(app).resume(text, place=PLACE) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text.replace("bootstrap", "anonymous"),
        lambda text: "x" + text,
        lambda text: text + ".",
        lambda text: text.partition(".")[2],
        lambda text: "ä" + text[1:],
        lambda _text: "",
        lambda _text: "." * 300,
    ],
)
def test_a_changed_session_is_none(app: App, change: Callable[[str], str]) -> None:
    """Whatever was done to it."""
    text = Sessions(app).begin(API_KEY, place=PLACE)

    assert Sessions(app).resume(change(text), place=PLACE) is None
    assert not Sessions(app).is_anonymous(change(text), place=PLACE)


def test_a_session_is_good_in_its_place_alone(app: App) -> None:
    """One of a cookie that came over http is none in the cookie of https."""
    text = Sessions(app).begin(API_KEY, place=PLACE)

    assert Sessions(app).resume(text, place="__Host-cookie") is None


def test_nobody_may_do_nothing(app: App) -> None:
    """The session of nobody is for forms, and lets nobody in."""
    sessions = Sessions(app)
    text = sessions.anonymous(place=PLACE)

    assert sessions.is_anonymous(text, place=PLACE)
    assert sessions.resume(text, place=PLACE) is None
    assert sessions.is_form_token(text, sessions.form_token(text), place=PLACE)


def test_a_form_is_of_one_session(app: App) -> None:
    """The token of another session, or of none, is refused."""
    sessions = Sessions(app)
    one, other = (sessions.begin(API_KEY, place=PLACE) for _ in range(2))

    assert sessions.is_form_token(one, sessions.form_token(one), place=PLACE)
    for found in (sessions.form_token(other), "", "ä"):
        assert not sessions.is_form_token(one, found, place=PLACE)
    assert not sessions.is_form_token(None, sessions.form_token(one), place=PLACE)
    assert not sessions.is_form_token("forged", sessions.form_token("forged"), place=PLACE)
