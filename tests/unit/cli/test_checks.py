"""`dpdau doctor`: what each check finds, and that it says what to do."""

import datetime as dt
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpdau import app
from dpdau.app import App
from dpdau.cli import checks
from dpdau.cli.checks import CHECKS, Finding, Status, run_check
from dpdau.cli.places import Kept
from dpdau.cli.root import run
from dpdau.settings import load

DAY = 86_400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory after `dpdau init`, for releases on demand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    assert 0 == run(["init"])
    return tmp_path


def found(name: str) -> Finding:
    """What a check finds; whoever finds something says what to do."""
    finding = run_check(name)
    assert (finding.status is Status.OK) == (not finding.todo)
    return finding


def test_all_is_well_after_init(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check passes on a new directory of a machine with a free port."""
    monkeypatch.setattr(checks, "_is_taken", lambda _port: False)

    assert {Status.OK} == {found(name).status for name in CHECKS}


def test_before_init_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no secret are problems, no directory a warning, and nothing is made."""
    monkeypatch.chdir(tmp_path)

    assert (Status.PROBLEM, "Run: dpdau init") == (
        found("api-key").status,
        found("api-key").todo,
    )
    assert 2 == found("secret").exit_code
    assert (Status.WARNING, Status.OK) == (found("permissions").status, found("disk").status)
    assert [] == list(tmp_path.iterdir())


def test_lines_are_for_people_and_json_for_programs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finding is a line, and one more that says what to do; a problem decides the exit code."""
    (home / "data").chmod(0o755)
    capsys.readouterr()
    assert 2 == run(["doctor", "--check", "permissions"])
    problem, todo = capsys.readouterr().out.splitlines()
    assert 2 == run(["doctor", "--check", "permissions", "--json"])
    (told,) = json.loads(capsys.readouterr().out)

    assert problem.startswith("problem  permissions  data can be read")
    assert "Run: chmod -R go-rwx dpdau.toml data" == todo.strip()
    assert todo.strip() == told["todo"]
    assert 2 == run(["doctor", "--check", "weather"])


def test_a_clock_behind_its_files_is_found(home: Path) -> None:
    """A file of the future says that the clock went back."""
    path = home / "data" / "later"
    path.touch()
    os.utime(path, times=(2 * path.stat().st_mtime, path.stat().st_mtime + DAY))
    finding = found("clock")

    assert Status.PROBLEM is finding.status
    assert "behind the time of data/later" in finding.message


def test_a_disk_that_fills_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning below one bound, a problem below the next; a folder that does not last, too."""

    def status_with(free: int) -> Status:
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
        return found("disk").status

    least, fewest = checks.DISK_FREE_LEAST_BYTES, checks.DISK_FREE_MIN_BYTES

    assert (Status.OK, Status.WARNING) == (status_with(least), status_with(least - 1))
    assert (Status.WARNING, Status.PROBLEM) == (status_with(fewest), status_with(fewest - 1))
    status_with(least)
    monkeypatch.setattr(checks, "lasting", lambda _path: Kept(lasts=False, words="in memory"))
    assert "in memory" in found("disk").message


def test_keys_that_end_and_keys_that_are_old_are_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two weeks before its end, or a year after it was made, a key wants a successor."""
    today = app.system_clock().date()
    make = ["keys", "create", "--scope", "read", "--label", "report"]
    assert 0 == run([*make, "--expires", (today + dt.timedelta(days=90)).isoformat()])
    assert Status.OK is found("stored-keys").status
    with monkeypatch.context() as patched:
        patched.setattr(checks, "API_KEY_AGE_DAYS_MAX", -1)
        assert "older than a year" in found("stored-keys").message
    assert 0 == run([*make, "--expires", (today + dt.timedelta(days=5)).isoformat()])
    assert "(report) ends on" in found("stored-keys").message


def test_an_old_backup_and_none_at_all_are_found(home: Path) -> None:
    """Nothing to lose, nothing copied, half a copy, copied today, copied long ago."""
    (home / "e.csv").write_text("user_id,day\na,2026-01-05\n")
    assert 0 == run(["ingest", "--from", "e.csv"])
    statuses = [found("backups").status]
    assert 0 == run(["dau", "--day", "2026-01-05"])
    statuses.append(found("backups").status)
    (home / "data" / "backups").mkdir()
    (half_made := home / "data" / "backups" / "all-3.partial").touch()
    statuses.append(found("backups").status)
    half_made.unlink()
    assert 0 == run(["backup"])
    statuses.append(found("backups").status)
    (copy,) = (home / "data" / "backups").iterdir()
    made = copy.stat().st_mtime
    os.utime(copy, times=(made, made - 8 * DAY))
    statuses.append(found("backups").status)

    warning = Status.WARNING
    assert [Status.OK, warning, warning, Status.OK, warning] == statuses
    assert "Run: dpdau backup --all" == found("backups").todo


def test_a_port_that_is_taken_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program on the port is a warning; where nothing owns the directory."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(checks, "DEFAULT_PORT", other.getsockname()[1])
        assert Status.WARNING is found("ports").status


@pytest.mark.parametrize(
    ("answer", "status"), [(200, Status.OK), (503, Status.PROBLEM), (None, Status.WARNING)]
)
def test_the_service_of_the_directory_is_asked(
    home: Path, answer: int | None, status: Status
) -> None:
    """Ready, not able to write, or silent: the service that owns the directory is looked for."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer or 500)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Probe) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        if answer is None:
            server.shutdown()
            server.server_close()
        with App.open(load(), serve_at=url).closing():
            finding = found("ports")
        server.shutdown()
        thread.join()

    assert status is finding.status
    assert url in finding.message


def test_an_extra_that_a_setting_needs_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPC_PORT without grpcio is a problem; without GRPC_PORT it is an absent extra."""
    monkeypatch.setattr(checks, "_is_installed", lambda module: module != "grpc")
    plain = found("extras")
    monkeypatch.setenv("GRPC_PORT", "50051")
    needed = found("extras")

    assert "not installed: grpc" in plain.message
    assert (Status.PROBLEM, "Run: pip install 'dp-dau-mau[grpc]'") == (needed.status, needed.todo)


def test_time_zones_say_where_they_come_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's data, or a package, which grows old."""
    monkeypatch.setenv("TIMEZONE", "Europe/Berlin")
    monkeypatch.setattr("zoneinfo.TZPATH", ())
    monkeypatch.setattr(checks, "version", lambda _name: "2020.1")
    assert Status.WARNING is found("time-zone").status
    monkeypatch.setattr(checks, "version", lambda _name: f"{app.system_clock().year}.1")

    assert Status.OK is found("time-zone").status
    assert "Europe/Berlin" in found("time-zone").message
