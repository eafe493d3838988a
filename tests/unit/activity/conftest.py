"""What the tests of this room share: stores whose limits are so low that every level is used."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from stores import NOW, TINY


@pytest.fixture
def tiny() -> StoreLimits:
    """Limits that a handful of rows passes."""
    return TINY


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., EmbeddedStore]]:
    """Opens the store of this test, with any option."""
    opened: list[EmbeddedStore] = []

    def open_(**options: object) -> EmbeddedStore:
        named = {"clock": lambda: NOW, "limits": TINY} | options
        opened.append(EmbeddedStore(tmp_path / "activity", **named))  # type: ignore[arg-type]
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
