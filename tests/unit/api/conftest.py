"""A product and a service over it that a whole file shares, for tests that change nothing."""

import os
from collections.abc import Iterator

import httpx
import pytest

from dpdau.app import App
from dpdau.settings import Settings
from in_process import service
from products import product

SMALL_BODY_BYTES = 1000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An empty product with one declared dimension and room for one DAU release a month."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in Settings.model_fields]:
            patch.delenv(name)
        with product(
            tmp_path_factory.mktemp("shared"), DIMENSIONS="platform", DAU_BUDGET_TOTAL=0.3
        ) as app:
            yield app


@pytest.fixture(scope="module")
def shared_http(shared: App) -> Iterator[httpx.Client]:
    """A client with the bootstrap key of a service that takes small bodies only."""
    with service(shared, max_body_bytes=SMALL_BODY_BYTES) as client:
        yield client


@pytest.fixture(scope="module")
def keyless_http(shared: App) -> Iterator[httpx.Client]:
    """A client without a key of a service over the same product."""
    with service(shared, key=None, max_body_bytes=SMALL_BODY_BYTES) as client:
        yield client
