"""One proof at a time, whoever asks; the others have the answer before it."""

import threading
from types import SimpleNamespace

import pytest

from dpdau.app import readiness
from dpdau.app.readiness import (
    KNOWN_SECONDS_MAX,
    PROOF_SECONDS_MAX,
    READY_SECONDS,
    Readiness,
)
from dpdau.errors import StoreUnavailableError
from in_process import captured_logs

SECONDS_MAX = 30.0


class Slow:
    """A product whose proof takes as long as the test says."""

    def __init__(self) -> None:
        self.proofs = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def check_ready(self) -> None:
        """One proof."""
        self.proofs += 1
        self.begun.set()
        assert self.may_end.wait(SECONDS_MAX)


def proving(one: Readiness) -> tuple[threading.Thread, list[bool]]:
    """A thread that asks, and what it heard."""
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(one.check()))
    thread.start()
    return thread, heard


def test_while_one_proves_others_have_the_answer_before() -> None:
    """Nobody waits for a second proof; one that takes too long is none."""
    product, now = Slow(), SimpleNamespace(seconds=0.0)
    one = Readiness(product, clock=lambda: now.seconds)
    assert one.check()
    now.seconds = READY_SECONDS
    product.begun.clear()
    product.may_end.clear()
    thread, heard = proving(one)
    assert product.begun.wait(SECONDS_MAX)

    during = [one.check() for _ in range(100)]
    now.seconds += PROOF_SECONDS_MAX + 0.1
    late = one.check(), one.known()
    product.may_end.set()
    thread.join()

    assert [True] * 100 == during
    assert (False, False) == late
    assert [True] == heard
    assert 2 == product.proofs


def test_few_wait_for_the_first_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits hears its outcome; beyond so many, others hear at once that it is not ready."""
    product = Slow()
    product.may_end.clear()
    one = Readiness(product)
    threads = [proving(one)]
    assert product.begun.wait(SECONDS_MAX)
    assert one.known() is None
    threads.append(proving(one))
    monkeypatch.setattr(readiness, "WAITING_MAX", 0)
    sent_away = one.check()
    monkeypatch.undo()
    product.may_end.set()
    for thread, _ in threads:
        thread.join()

    assert not sent_away
    assert [True] == threads[0][1]
    assert 1 == product.proofs


def test_an_old_answer_is_none() -> None:
    """Who asks while a proof runs waits for it where the answer before it is too old to tell."""
    product, now = Slow(), SimpleNamespace(seconds=0.0)
    one = Readiness(product, clock=lambda: now.seconds)
    assert one.check()
    now.seconds = KNOWN_SECONDS_MAX
    product.begun.clear()
    product.may_end.clear()
    threads = [proving(one)]
    assert product.begun.wait(SECONDS_MAX)
    in_time = one.known()
    now.seconds += 0.1
    too_old = one.known()
    threads.append(proving(one))
    product.may_end.set()
    for thread, _ in threads:
        thread.join()

    assert (True, None) == (in_time, too_old)
    assert [[True], [True]] == [heard for _, heard in threads]
    assert 2 == product.proofs


def test_a_proof_that_fails_by_a_bug_is_none() -> None:
    """Whatever it raises, the answer is no, and the log says where but not with which words."""

    class Broken:
        def check_ready(self) -> None:
            """One proof."""
            raise OSError("/srv/secret-place")

    with captured_logs() as logs:
        assert not Readiness(Broken()).check()
    assert "check_ready" in logs.getvalue()
    assert "/srv/secret-place" not in logs.getvalue()


def test_why_it_is_not_ready_is_in_the_log_alone() -> None:
    """The answer is no; the detail is for the operator."""

    class Broken:
        def check_ready(self) -> None:
            """One proof."""
            raise StoreUnavailableError("Expected /srv/secret-place.")

    with captured_logs() as logs:
        assert not Readiness(Broken()).check()
    assert "/srv/secret-place" in logs.getvalue()
