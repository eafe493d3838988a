"""A product in a temporary directory: settings, a standing clock, recorded noise, and events."""

import base64
import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpdau.app import App
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.event import decode_objects
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.release import NoiseDesk
from dpdau.settings import Settings, load

NOW = dt.datetime(2026, 3, 15, 12, 0, tzinfo=dt.UTC)
SECRET = "b64:" + base64.b64encode(bytes(range(7, 39))).decode()
API_KEY = "k-5f1d0c3ab2e94786-of-the-tests"
DAY = dt.date(2026, 3, 10)


class ZeroNoise:
    """A noise source that adds nothing and counts how often it was asked."""

    def __init__(self) -> None:
        self.draws = 0

    def discrete_laplace(self, scale: float, size: int) -> NDArray[np.int64]:
        """Zeros."""
        self.draws += size
        return np.zeros(size, np.int64)

    discrete_gaussian = discrete_laplace


def product_settings(root: Path, **changes: Any) -> Settings:
    """Settings over a directory, with a secret and an API key; releases are on demand."""
    values = {
        "HASH_SALT_SECRET": SECRET,
        "SERVICE_API_KEY": API_KEY,
        "RELEASE_POLICY": "on_demand",
        **changes,
    }
    config = root / "dpdau.toml"
    root.mkdir(parents=True, exist_ok=True)
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    return load(config, DATA_DIR=root / "data")


@contextmanager
def product(
    root: Path,
    *,
    now: dt.datetime = NOW,
    noise: NoiseSource | None = None,
    unsafe_debug: bool = False,
    serve_at: str | None = None,
    **changes: Any,
) -> Iterator[App]:
    """An open product; noise is zero unless a source is given."""
    settings = product_settings(root, **changes)
    source = ZeroNoise() if noise is None else noise
    opened = App.open(
        settings,
        clock=lambda: now,
        noise=source,
        desk=NoiseDesk(source, seconds=0.0),
        unsafe_debug=unsafe_debug,
        serve_at=serve_at,
    )
    with opened.closing() as app:
        yield app


def event(user_id: str, day: dt.date = DAY, op: str = "+", **more: Any) -> dict[str, Any]:
    """One event as a sender would write it."""
    return {"user_id": user_id, "op": op, "day": day.isoformat(), **more}


def send(app: App, events: Iterable[dict[str, Any]], batch_id: str | None = None) -> IngestReport:
    """Ingests events."""
    return app.ingest(decode_objects(list(events), rules=app.rules()), batch_id=batch_id)
