"""What every test shares: no outside settings, and a known clock."""

import datetime as dt
import os
from collections.abc import Callable

import pytest
from _pytest.nodeid import coerce_node_id
from hypothesis import HealthCheck, settings

from dpdau.settings import Settings

# One worker a core: threads of linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=500 if "DPDAU_SOAK" in os.environ else 40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What draws, kills, recounts or drives long streams is run without tracing.

    Tracing would double its time, and the unit tests reach the same lines.
    """
    for item in items:
        streams = {"simulation", "contracts"} & set(item.path.parts)
        drawn = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if (
            drawn
            or streams
            or item.get_closest_marker("slow")
            or item.get_closest_marker("statistical")
        ):
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session):
    """Tells the scheduler of pytest-xdist which tests go to one worker.

    Version 3.8 adds the group to a name that pytest 9.2 no longer reads, so `--dist loadgroup`
    would do nothing. The name has it only while the scheduler is told: what is reported, and what
    `--lf` remembers, is the name that runs the test again.
    """
    plain = {item: item.id for item in session.items if hasattr(item, "_nodeid")}
    for item in plain:
        item._id = coerce_node_id(item._nodeid)  # type: ignore[attr-defined]
    yield
    for item, known in plain.items():
        item._id = known  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where everything is required, as in continuous integration, a skip is a failure."""
    report = yield
    if report.skipped and _EVERYTHING_IS_REQUIRED and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where DPDAU_REQUIRE_ALL is set: {report.longrepr}"
    return report


_EVERYTHING_IS_REQUIRED = bool(os.environ.get("DPDAU_REQUIRE_ALL"))
NOW = dt.datetime(2026, 3, 15, 12, 0, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """No setting of the machine reaches a test, and no test writes into the checkout."""
    for name in [name for name in os.environ if name in Settings.model_fields]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def clock() -> Callable[[], dt.datetime]:
    """A clock that stands still."""
    return lambda: NOW
