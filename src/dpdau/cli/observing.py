"""What a service tells of itself while it runs: state, alerts, traces."""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dpdau.domain import SupportsClose

if TYPE_CHECKING:
    from dpdau.app import App

CLOSE_SECONDS_MAX: Final = 6.0


def observe(app: "App", *, owns: bool, opening: bool, unsafe_debug: bool) -> None:
    """Has a service watched, its alerts delivered and its traces exported, until it is closed.

    Args:
        app: The product, which keeps counters.
        owns: Whether this process holds the activity and closes days.
        opening: Whether its schedule opens the plan of each month.
        unsafe_debug: Whether it answers with exact counts.
    """
    from dpdau.app.alerts import Alerts
    from dpdau.app.watch import Watch

    assert app.metrics is not None, "a service keeps counters"
    loaded = app.settings
    parts: list[SupportsClose] = []
    if loaded.OTEL_EXPORTER_OTLP_ENDPOINT is not None and not loaded.OTEL_SDK_DISABLED:
        from dpdau.app.exporting import Exporting

        parts.append(Exporting(loaded, app.metrics.registry))
    alerts = Alerts.of(loaded, clock=app.calendar.clock)
    if unsafe_debug:
        alerts.post("unsafe_debug")
    opening = opening and loaded.RELEASE_POLICY == "plan"
    watch = Watch(app, metrics=app.metrics, alerts=alerts, owns=owns, opening=opening)
    parts.append(watch)
    app.attach(Together(parts))
    watch.start()


class Together:
    """Parts that speak to others, closed side by side.

    Guarantee: closing takes `CLOSE_SECONDS_MAX` at most, whoever does not answer.
    """

    def __init__(self, parts: Sequence[SupportsClose]) -> None:
        self._parts = parts

    def close(self) -> None:
        """Closes all of them; may be called twice."""
        ends = time.monotonic() + CLOSE_SECONDS_MAX
        closing = [threading.Thread(target=part.close, daemon=True) for part in self._parts]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, ends - time.monotonic()))
