"""A product and a service over it: of one test, or shared by a file whose tests change nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dpdau.app import App
from dpdau.settings import Settings
from in_process import service
from products import product

SMALL_BODY_BYTES = 1000


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product with one declared dimension."""
    with product(tmp_path, DIMENSIONS="platform") as opened:
        yield opened


@pytest.fixture
def http(app: App) -> Iterator[httpx.Client]:
    """A client of a service over it, with the bootstrap key."""
    with service(app) as client:
        yield client


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
