"""What a service tells of itself while it runs: state, alerts, traces."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpdau.app import App


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
    if loaded.OTEL_EXPORTER_OTLP_ENDPOINT is not None and not loaded.OTEL_SDK_DISABLED:
        from dpdau.app.exporting import Exporting

        app.attach(Exporting(loaded, app.metrics.registry))
    alerts = Alerts.of(loaded, clock=app.calendar.clock)
    if unsafe_debug:
        alerts.post("unsafe_debug")
    opening = opening and loaded.RELEASE_POLICY == "plan"
    watch = Watch(app, metrics=app.metrics, alerts=alerts, owns=owns, opening=opening)
    app.attach(watch)
    watch.start()
