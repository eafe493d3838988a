"""Erasure: receipts name nobody and are never guessed."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from dpdau.activity import erasure
from dpdau.activity.embedded import EmbeddedStore
from dpdau.domain import Event, Op
from dpdau.errors import NotFoundError
from strategies import batch

NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)

Open = Callable[..., EmbeddedStore]


def test_the_receipt_outlives_the_process(open_store: Open) -> None:
    """Another process finds the receipt by its id."""
    store = open_store()
    store.apply(batch([Event(7, Op.ADD, 20_000), Event(7, Op.ADD, 20_001)]))
    receipt = erasure.erase(store, [7, 8], clock=lambda: NOW)
    store.close()

    assert receipt == erasure.receipt(open_store(read_only=True), receipt.erasure_id)
    assert 2 == receipt.days_touched


def test_an_unknown_user_gets_a_receipt_too(open_store: Open) -> None:
    """Whether a user was known shows only in the days touched; ids never repeat."""
    store = open_store()
    receipts = [erasure.erase(store, [7], clock=lambda: NOW) for _ in range(3)]

    assert {0} == {one.days_touched for one in receipts}
    assert 3 == len({one.erasure_id for one in receipts})
    assert all(len(one.erasure_id) == 32 for one in receipts)


def test_no_receipt_without_erasure(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rows stay, so does the absence of a receipt."""
    store = open_store()
    store.apply(batch([Event(7, Op.ADD, 20_000)]))

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dpdau.activity.manifest.Manifest.drop_pending", broken)
        patched.setattr(erasure.secrets, "token_hex", lambda _size: "known")
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(store, [7], clock=lambda: NOW)
    with pytest.raises(NotFoundError):
        erasure.receipt(store, "known")
    assert 1 == store.forget([7])


def test_the_receipt_names_no_user(open_store: Open, tmp_path: Path) -> None:
    """Neither the receipt nor any file tells who was forgotten."""
    who = 0x1122334455667788
    store = open_store()
    store.apply(batch([Event(who, Op.ADD, 20_000)]))
    receipt = erasure.erase(store, [who], clock=lambda: NOW)
    texts = [str(who).encode(), f"{who:x}".encode(), who.to_bytes(8, "little")]

    assert str(who) not in repr(receipt)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(text in path.read_bytes() for text in texts)
