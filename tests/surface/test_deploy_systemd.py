"""The systemd unit: it starts the product, confines it, and gives it time to stop."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau.api.server import DRAIN_SECONDS_MAX, STUCK_SECONDS
from dpdau.errors import OUTCOMES
from dpdau.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "dpdau.service"
EXPOSURE_MAX = 20
"""In tenths, as `systemd-analyze security` rates it; without any of the lines it is 96."""


def directives() -> dict[str, dict[str, list[str]]]:
    """The unit: section → directive → its values."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = {}
        elif line and not line.startswith("#"):
            name, value = line.split("=", 1)
            sections[section].setdefault(name, []).append(value)
    return sections


def service() -> dict[str, str]:
    """The last value of each directive of the service."""
    return {name: values[-1] for name, values in directives()["Service"].items()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with a command that exists on this machine."""
    command = service()["ExecStart"].split()[0]
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(command, sys.executable), "utf-8")
    return unit


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One run of systemd-analyze, which needs no running systemd for these."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not on the path.")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit(here: Path) -> None:
    """`systemd-analyze verify` knows every directive and finds no fault."""
    done = analyze("verify", here)

    assert (0, "") == (done.returncode, done.stderr)


def test_the_unit_is_closed_up(here: Path) -> None:
    """`systemd-analyze security` rates its exposure low."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", here)

    assert 0 == done.returncode, done.stdout[-500:]


def test_it_runs_the_service_as_nobody_special() -> None:
    """A user of its own; one folder that is its own, 0700; everything else read-only."""
    found = service()

    assert "dpdau serve --host 127.0.0.1" in found["ExecStart"]
    assert "root" != found["User"]
    assert f"u {found['User']} " in (FOLDER / "dpdau.sysusers.conf").read_text("utf-8")
    assert ("strict", "yes", "yes", "0077") == tuple(
        found[name] for name in ("ProtectSystem", "ProtectHome", "NoNewPrivileges", "UMask")
    )
    assert "" == found["CapabilityBoundingSet"]
    assert ("dpdau", "0700") == (found["StateDirectory"], found["StateDirectoryMode"])
    assert "DATA_DIR=/var/lib/dpdau/data" == found["Environment"]
    assert "ReadWritePaths" not in found


def test_a_stop_waits_for_requests_in_flight() -> None:
    """The stop signal is the one that drains, and its limit is beyond the drain's own."""
    found = service()

    assert "SIGTERM" == found["KillSignal"]
    assert int(found["TimeoutStopSec"]) > DRAIN_SECONDS_MAX + STUCK_SECONDS


def test_it_restarts_only_where_that_can_help() -> None:
    """A bug or an outage is tried again; a wrong setting and damage are left to a person."""
    found = service()
    final = {int(code) for code in found["RestartPreventExitStatus"].split()}

    assert "on-failure" == found["Restart"]
    assert {2, 6} == final
    assert final < {outcome.exit_code for outcome in OUTCOMES.values()}


def test_the_example_of_settings_holds_no_secret() -> None:
    """It names real settings, and leaves the secrets empty, with which no start succeeds."""
    lines = (FOLDER / "dpdau.env.example").read_text("utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    assert set(values) <= set(Settings.model_fields)
    assert ("", "") == (values["HASH_SALT_SECRET"], values["SERVICE_API_KEY"])
