"""A deployment that only passes events on: no number and no erasure from an empty store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components import free_port
from dpdau.app import App
from dpdau.app.gateway import feed_of
from dpdau.domain import Metric
from dpdau.errors import InvalidSettingError, StoreUnavailableError
from dpdau.ingest.event import Decoded
from products import DAY, product

pytest.importorskip("confluent_kafka")
VERBS: dict[str, Callable[[App], object]] = {
    "release": lambda app: app.release(Metric.DAU, DAY),
    "growth": lambda app: app.growth(DAY),
    "erase": lambda app: app.erase("ada"),
    "exact": lambda app: app.exact({Metric.DAU: 1}, DAY, DAY, reason="test"),
}


def settings() -> dict[str, object]:
    """Settings of a gateway to a broker that is away."""
    return {"INGEST_MODE": "kafka", "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_gateway_refuses_what_needs_activity(verb: str, tmp_path: Path) -> None:
    """Nothing is charged and no receipt is given where nothing was consumed."""
    with product(tmp_path, **settings()) as app:
        with pytest.raises(StoreUnavailableError, match="consumes"):
            VERBS[verb](app)

        assert 0 == app.budget("dau", DAY).epsilon_spent
        assert [] == app.releases(after=None, limit=10)[0]


def test_a_month_is_not_opened_by_a_gateway(tmp_path: Path) -> None:
    """The plan of a month belongs where the activity is."""
    with (
        product(tmp_path, **settings(), RELEASE_POLICY="plan") as app,
        pytest.raises(StoreUnavailableError, match="consumes"),
    ):
        app.open_month("2026-03")


def test_a_gateway_writes_down_no_erasure(tmp_path: Path) -> None:
    """What it refuses is not on record as an erasure: a restore would have it repeated."""
    with product(tmp_path, **settings()) as app:
        with pytest.raises(StoreUnavailableError, match="consumes"):
            app.erase("ada")
        actions = [one.action for one in app.ledger.audit_log()]

    assert "erase" not in actions


def test_a_month_is_not_given_up_by_a_gateway(tmp_path: Path) -> None:
    """The ledger is left as it was: what is kept of the month is where the activity is."""
    with product(tmp_path, RELEASE_POLICY="plan") as app:
        app.open_month("2026-03")
    with product(tmp_path, **settings(), RELEASE_POLICY="plan") as app:
        with pytest.raises(StoreUnavailableError, match="consumes"):
            app.abandon_month("2026-03", reason="test")

        assert not app.month("2026-03").abandoned


def test_a_store_that_was_fed_answers(tmp_path: Path) -> None:
    """Where events were consumed, every verb is as anywhere else."""
    with product(tmp_path, **settings()) as app:
        feed = {app.keys.source_name(feed_of("dpdau-events")): 1}
        app.intake.submit_consumed(Decoded((), (), 0), feed).result()

        assert 0 == app.release(Metric.DAU, DAY).release.estimate
        assert 0 == app.erase("ada").days_touched


def test_kafka_needs_an_address(tmp_path: Path) -> None:
    """Without KAFKA_BOOTSTRAP_SERVERS a gateway does not start."""
    with (
        pytest.raises(InvalidSettingError, match="KAFKA_BOOTSTRAP_SERVERS"),
        product(tmp_path, INGEST_MODE="kafka"),
    ):
        pass
