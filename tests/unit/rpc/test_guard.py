"""Who calls: keys that are known for a moment, and windows."""

import pytest

from dpdau.app import admission
from dpdau.app.admission import RateLimiter
from dpdau.domain import OPERATOR, Caller, Scope, act_as, actor
from dpdau.errors import NotAuthenticatedError, NotAuthorizedError, RateLimitedError
from dpdau.rpc.guard import Guard, Visitor, key_of


class Keys:
    """An app that knows some keys, and notes how often it was asked."""

    def __init__(self) -> None:
        self.known = {"a": frozenset({Scope.READ})}
        self.asked = 0

    def authenticate(self, key: str) -> Caller:
        """The caller of a key."""
        self.asked += 1
        if key not in self.known:
            raise NotAuthenticatedError("Expected another.")
        return Caller(key, self.known[key])


def test_a_key_is_looked_up_again_after_a_moment() -> None:
    """A revoked key is refused once what was known of it is over."""
    now, keys = [0.0], Keys()
    met = Guard(keys, no_auth=False, clock=lambda: now[0])  # type: ignore[arg-type]
    assert "a" == met.caller("a").name == met.caller("a").name
    assert 1 == keys.asked

    keys.known.clear()
    now[0] += admission.KNOWN_SECONDS
    with pytest.raises(NotAuthenticatedError):
        met.caller("a")


def test_known_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many keys are known at once."""
    monkeypatch.setattr(admission, "KNOWN_KEYS_MAX", 2)
    keys = Keys()
    keys.known = {str(one): frozenset() for one in range(5)}
    met = Guard(keys, no_auth=False)  # type: ignore[arg-type]
    for one in keys.known:
        met.caller(one)

    assert len(met._known) <= 2


@pytest.mark.parametrize("key", [None, "", "x" * 513, "é", "b"])
def test_other_keys_are_refused(key: str | None) -> None:
    """No key, an unknown one and one that cannot be are the same."""
    with pytest.raises(NotAuthenticatedError):
        Guard(Keys(), no_auth=False).caller(key)  # type: ignore[arg-type]


def test_windows_and_scopes_are_asked_in_order() -> None:
    """The window of the address first, then the key, then its scope."""
    met, limiter = Guard(Keys(), no_auth=False), RateLimiter("2/hour")  # type: ignore[arg-type]
    with pytest.raises(NotAuthenticatedError):
        met.admit(Visitor("here", None), Scope.READ, limiter)
    with pytest.raises(NotAuthorizedError):
        met.admit(Visitor("here", "a"), Scope.ERASE, limiter)
    with pytest.raises(RateLimitedError):
        met.admit(Visitor("here", None), Scope.READ, limiter)


def test_without_keys_everybody_may_do_everything() -> None:
    """Under --no-auth no key is asked for."""
    met = Guard(Keys(), no_auth=True)  # type: ignore[arg-type]

    assert met.admit(Visitor("here", None), Scope.ERASE, RateLimiter("9/second")).may(Scope.ADMIN)


def test_a_visitor_shows_no_key() -> None:
    """Neither the key nor the address is in the repr, and the first key counts."""
    assert "secret" not in repr(Visitor("secret-address", "secret-key"))
    assert "a" == key_of((("other", "x"), ("x-api-key", "a"), ("x-api-key", "b")))


def test_a_key_has_its_own_limit_and_name() -> None:
    """As over HTTP: its window is its own, and the audit log names it."""
    keys = Keys()
    limited = Caller("a", frozenset({Scope.READ}), "0123", "1/hour")
    keys.authenticate = lambda _key: limited  # type: ignore[method-assign]
    met, limiter = Guard(keys, no_auth=False), RateLimiter("9/hour")  # type: ignore[arg-type]
    visitor = Visitor("10.0.0.1", "a")

    assert limited == met.admit(visitor, Scope.READ, limiter)
    assert "a (0123)" == actor()
    with pytest.raises(RateLimitedError):
        met.admit(visitor, Scope.READ, limiter)
    act_as(OPERATOR)
