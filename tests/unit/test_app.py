"""The verbs of the product, and what they record."""

import base64
import datetime as dt
import shutil
from pathlib import Path

import pytest

from dpdau.app import App, create
from dpdau.domain import Metric, Scope
from dpdau.errors import (
    BudgetExhaustedError,
    DataDirInUseError,
    InvalidEventError,
    InvalidPlanError,
    InvalidSettingError,
    LedgerCorruptError,
    NotAuthenticatedError,
    NotFoundError,
    SecretMismatchError,
    StoreCorruptError,
)
from products import API_KEY, DAY, NOW, event, product, product_settings, send

OTHER_SECRET = base64.b64encode(bytes(range(90, 122))).decode()


@pytest.mark.parametrize(
    "secret", [None, "", "short", "b64:c2hvcnQ=", "{{HASH_SALT_SECRET}}" * 3, "a" * 64]
)
def test_no_start_without_a_real_secret(tmp_path: Path, secret: str | None) -> None:
    """A missing, short or placeholder secret stops the start and names the setting."""
    settings = product_settings(tmp_path, HASH_SALT_SECRET=secret or "")
    if secret is None:
        settings = settings.model_copy(update={"HASH_SALT_SECRET": None})

    with pytest.raises(InvalidSettingError, match="HASH_SALT_SECRET"):
        App.open(settings)


def test_another_secret_is_refused(tmp_path: Path) -> None:
    """Data that was written under one secret is not opened under another."""
    with product(tmp_path):
        pass

    with (
        pytest.raises(SecretMismatchError),
        product(tmp_path, HASH_SALT_SECRET="b64:" + OTHER_SECRET),
    ):
        pass


def test_activity_without_its_keyring_is_refused(tmp_path: Path) -> None:
    """A lost keyring is not replaced: new keys would count every user as somebody else."""
    with product(tmp_path) as app:
        send(app, [event("a")])
    shutil.rmtree(tmp_path / "data" / "keyring")

    with pytest.raises(SecretMismatchError, match="keyring"), product(tmp_path):
        pass


def test_a_lost_manifest_is_refused_and_nothing_is_deleted(tmp_path: Path) -> None:
    """An activity store without its manifest, or with an empty one, stops the start untouched."""
    with product(tmp_path) as app:
        send(app, [event(f"u{number}") for number in range(3000)])
    manifest = tmp_path / "data" / "activity" / "manifest.sqlite"
    whole = manifest.read_bytes()
    files = sorted(path.name for path in (tmp_path / "data" / "activity").rglob("*.seg"))
    for content in (None, b""):
        manifest.unlink()
        if content is not None:
            manifest.write_bytes(content)
        with pytest.raises(StoreCorruptError, match="manifest"), product(tmp_path):
            pass
        manifest.touch()
    manifest.write_bytes(whole)

    assert files == sorted(path.name for path in (tmp_path / "data" / "activity").rglob("*.seg"))
    with product(tmp_path) as app:
        assert [3000] == app.exact({Metric.DAU: 1}, DAY, DAY, reason="a test")[Metric.DAU].tolist()


def test_a_deleted_ledger_is_not_replaced(tmp_path: Path) -> None:
    """Where days were released, a missing ledger and mark stop the start: nothing is refunded."""
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
    shutil.rmtree(tmp_path / "data" / "ledgers")
    (tmp_path / "data" / "ledger.mark.json").unlink()

    with pytest.raises(LedgerCorruptError, match="refund"), product(tmp_path):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPSILON_DAU", "30"),
        ("EPSILON_DAU", "1e-13"),
        ("EPSILON_WAU", "1e-5"),
        ("DELTA", "1e-40"),
        ("DAU_BUDGET_TOTAL", "1e-5"),
    ],
)
def test_terms_that_no_mechanism_keeps_stop_the_start(
    tmp_path: Path, name: str, value: str
) -> None:
    """A setting that every release would fail under is refused at the start, by name."""
    with pytest.raises(InvalidSettingError, match=name), product(tmp_path, **{name: value}):
        pass


def test_price_charges_nothing(tmp_path: Path) -> None:
    """A quote states cost and precision, and leaves the ledger alone."""
    with product(tmp_path, DAU_BUDGET_TOTAL=0.3) as app:
        quote = app.price(Metric.DAU, DAY)
        app.release(Metric.DAU, DAY)
        after = app.price(Metric.DAU, DAY - dt.timedelta(days=1))

    assert (True, False) == (quote.affordable, after.affordable)
    assert 0 == quote.budget.release_count
    assert 0.3 == quote.epsilon
    assert quote.half_width_95 > quote.noise_stddev


def test_a_price_is_what_a_release_then_states(tmp_path: Path) -> None:
    """The quote and the release agree on noise, interval and cost."""
    with product(tmp_path) as app:
        quote = app.price(Metric.MAU, DAY)
        release = app.release(Metric.MAU, DAY).release

    assert (quote.noise_stddev, quote.epsilon, quote.delta) == (
        release.noise_stddev,
        release.epsilon,
        release.delta,
    )
    assert quote.half_width_95 == release.upper_95 - release.estimate


def test_series_shows_what_is_released_in_day_order(tmp_path: Path) -> None:
    """Series gives released numbers only, each with its own month's budget, and never spends."""
    last_month = dt.date(2026, 2, 20)
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
        app.release(Metric.DAU, last_month)
        app.release(Metric.MAU, DAY, window_days=10)
        app.release(Metric.MAU, DAY)
        found = app.series([Metric.DAU, Metric.MAU], dt.date(2026, 2, 1), DAY)
        with pytest.raises(InvalidPlanError):
            app.series([Metric.DAU], DAY, dt.date(2026, 2, 1))

    assert [(last_month, 1), (DAY, 1), (DAY, 10), (DAY, 30)] == [
        (one.release.window.end, one.release.window.days) for one in found
    ]
    assert ["2026-02", "2026-03"] == [one.budget.period for one in found[:2]]
    assert all(one.replayed for one in found)


def test_erasing_takes_a_user_out_of_open_windows(tmp_path: Path) -> None:
    """After an erasure later numbers no longer contain the user; the receipt is found again."""
    with product(tmp_path) as app:
        send(app, [event("a", DAY - dt.timedelta(days=back)) for back in range(5)] + [event("b")])
        receipt = app.erase("a")

        assert receipt == app.erasure(receipt.erasure_id)
        assert 1 == app.release(Metric.MAU, DAY).release.estimate
        log = app.ledger.audit_log()
        with pytest.raises(NotFoundError):
            app.erasure("no-such-id")
        with pytest.raises(InvalidEventError):
            app.erase("")

    assert 5 == receipt.days_touched
    assert receipt.erasure_id in [one.facts.get("erasure_id") for one in log]


def test_exact_counts_are_recorded_before_they_are_read(tmp_path: Path) -> None:
    """Each read of exact counts has an entry in the audit log that names what was read."""
    with product(tmp_path) as app:
        send(app, [event("a"), event("b")])
        table = app.exact({Metric.DAU: 1}, DAY, DAY, reason="a test")
        entry = app.ledger.audit_log()[-1]

    assert [2] == table[Metric.DAU].tolist()
    assert ("exact_read", "a test") == (entry.action, entry.facts["reason"])
    assert "2" != str(entry.facts.get("exact"))


def test_a_refusal_says_what_is_left_and_what_to_do(tmp_path: Path) -> None:
    """The message has the cost, the remainder, the cap and the ways on; the facts the block."""
    with product(tmp_path, DAU_BUDGET_TOTAL=0.5) as app:
        app.release(Metric.DAU, DAY)
        with pytest.raises(BudgetExhaustedError) as caught:
            app.release(Metric.DAU, DAY - dt.timedelta(days=1))

    for words in ("ε 0.3", "0.2 of ε 0.5", "2026-03", "reset-budget"):
        assert words in caught.value.message
    assert 0.2 == caught.value.facts["budget"]["epsilon_remaining"]


def test_a_grant_adds_an_allowance_and_keeps_the_spending(tmp_path: Path) -> None:
    """After a grant the cap is twice as high, and what was spent is still there."""
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
        block = app.grant("dau", DAY, reason="a second report", grant_id="it")
        assert block == app.grant("dau", DAY, reason="a second report", grant_id="it")

    assert (6.0, 0.3, 1) == (block.epsilon_cap, block.epsilon_spent, block.release_count)


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    """A budget of a metric that is not there is one clear error."""
    with product(tmp_path) as app, pytest.raises(InvalidPlanError, match="dau, wau, mau"):
        app.budget("yau")


def test_keys_are_told_apart(tmp_path: Path) -> None:
    """The bootstrap key may do all; a stored key what it was made for; others nothing."""
    with product(tmp_path) as app:
        _, reading = app.ledger.keys.create("reader", {Scope.READ}, None)
        boss, reader = app.authenticate(API_KEY), app.authenticate(reading)
        for wrong in (None, "", "wrong", API_KEY + "x", reading[:-1], "ключ"):
            with pytest.raises(NotAuthenticatedError):
                app.authenticate(wrong)

    assert boss.may(Scope.ERASE)
    assert reader.may(Scope.READ)
    assert not reader.may(Scope.RELEASE)


def test_a_service_owns_its_directory(tmp_path: Path) -> None:
    """While a service has the directory, a command is told its URL; reading goes on beside it."""
    with product(tmp_path, serve_at="http://127.0.0.1:8000") as app:
        send(app, [event("a")])
        with pytest.raises(DataDirInUseError, match=r"127\.0\.0\.1:8000"), product(tmp_path):
            pass
        beside = App.open(app.settings, clock=lambda: NOW, read_only=True)
        with beside.closing():
            table = beside.exact({Metric.DAU: 1}, DAY, DAY, reason="a test")

    assert [1] == table[Metric.DAU].tolist()


def test_retention_refuses_and_purges_what_is_older(tmp_path: Path) -> None:
    """With a retention set, older activity is refused, and dropped once it becomes older."""
    with product(tmp_path, RETENTION_DAYS=40) as app:
        old = event("a", NOW.date() - dt.timedelta(days=41))
        kept = event("b", NOW.date() - dt.timedelta(days=40))
        report = send(app, [old, kept])
    later = NOW + dt.timedelta(days=1)
    with product(tmp_path, RETENTION_DAYS=40, now=later) as app:
        send(app, [event("c")])
        day = NOW.date() - dt.timedelta(days=40)
        table = app.exact({Metric.DAU: 1}, day, day, reason="a test")

    assert ["too_old"] == [one.code.value for one in report.rejected]
    assert [0] == table[Metric.DAU].tolist()


def test_a_retried_batch_is_applied_once(tmp_path: Path) -> None:
    """A batch id that was applied counts as duplicate, also after a restart."""
    with product(tmp_path) as app:
        first = send(app, [event("a"), event("b")], batch_id="one")
    with product(tmp_path) as app:
        again = send(app, [event("a"), event("b")], batch_id="one")

    assert (2, 0) == (first.accepted, first.duplicate)
    assert (0, 2) == (again.accepted, again.duplicate)


def test_create_makes_an_encrypted_store_only_from_the_start(tmp_path: Path) -> None:
    """Encryption is chosen when the directory is made."""
    settings = product_settings(tmp_path)
    create(settings, encrypt_store=False)

    with pytest.raises(InvalidSettingError):
        create(settings, encrypt_store=True)

    other = product_settings(tmp_path / "other")
    create(other, encrypt_store=True)
    create(other, encrypt_store=True)
