"""Readiness is proved now and then, however often it is asked for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dpdau.api.readiness import ReadinessProbe
from dpdau.app.readiness import READY_SECONDS, Readiness
from dpdau.errors import LedgerCorruptError, StoreUnavailableError


class Product:
    """A product that counts its proofs, and fails where it is told to."""

    def __init__(self) -> None:
        self.proofs = 0
        self.error: Exception | None = None

    def check_ready(self) -> None:
        """One proof."""
        self.proofs += 1
        if self.error is not None:
            raise self.error


def readiness(product: Any, now: SimpleNamespace) -> ReadinessProbe:
    """Readiness under a clock that stands at `now.seconds`."""
    return ReadinessProbe(Readiness(product, clock=lambda: now.seconds))


def test_many_who_ask_at_once_cause_one_proof() -> None:
    """A thousand probes within the second write once; the next second writes again."""
    product, now = Product(), SimpleNamespace(seconds=100.0)
    one = readiness(product, now)

    async def probe() -> list[int]:
        proofs = []
        for seconds in (100.0, 100.0 + READY_SECONDS - 0.01, 100.0 + READY_SECONDS):
            now.seconds = seconds
            answers = await asyncio.gather(*(one.check() for _ in range(1000)))
            assert [True] * 1000 == answers
            proofs.append(product.proofs)
        return proofs

    assert [1, 1, 2] == asyncio.run(probe())


@pytest.mark.parametrize("error", [StoreUnavailableError("full"), LedgerCorruptError("broken")])
def test_a_failure_is_remembered_as_long_and_then_asked_for_again(error: Exception) -> None:
    """A product that cannot write is not ready until a later proof succeeds."""
    product, now = Product(), SimpleNamespace(seconds=0.0)
    one = readiness(product, now)
    product.error = error

    first = asyncio.run(one.check())
    product.error = None
    within = asyncio.run(one.check())
    now.seconds = READY_SECONDS
    after = asyncio.run(one.check())

    assert [False, False, True] == [first, within, after]
    assert 2 == product.proofs
