"""compose.yaml and what it mounts: closed, complete, without a default secret, with one writer."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import go_programs
from dpdau import __version__
from dpdau.api.server import DRAIN_SECONDS_MAX, STUCK_SECONDS
from dpdau.cli.root import app as cli
from dpdau.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "compose.yaml"
OWN = ("init", "service", "writer", "front")
NOT_READ_ONLY = {"kafka"}
"""Its start script writes into its image; the file says so."""


def services() -> dict[str, dict[str, Any]]:
    """Every service by its name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    return found


def default_command() -> list[str]:
    """The command of the image."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    command: list[str] = json.loads(re.findall(r"^CMD (.*)$", text, re.M)[-1])
    return command


def command(name: str) -> list[str]:
    """What a service of ours runs."""
    return list(services()[name].get("command", default_command()))


def dashboard() -> dict[str, Any]:
    """The dashboard that Grafana is given."""
    text = (ROOT / "deploy" / "grafana" / "dashboards" / "dpdau.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_compose_takes_the_file(tmp_path: Path) -> None:
    """Compose's own loader finds no fault in the file, nor any variable but the password."""
    done = subprocess.run(
        [go_programs.compose_loader(), "--format", "json", FILE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert set(services()) == set(json.loads(done.stdout)["services"])
    assert {"POSTGRES_PASSWORD"} == set(re.findall(r"\$\{(\w+)", FILE.read_text("utf-8")))


def test_a_fault_in_the_file_would_be_found(tmp_path: Path) -> None:
    """What the test above relies on: the loader refuses a key that Compose does not know."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text("utf-8").replace("restart:", "restarts:", 1), "utf-8")
    done = subprocess.run(
        [go_programs.compose_loader(), wrong], cwd=tmp_path, capture_output=True, check=False
    )

    assert 0 != done.returncode
    assert b"restarts" in done.stderr


def test_there_is_no_default_secret() -> None:
    """The password is empty unless it is given; nobody may log in to Grafana; no setting is one."""
    text = FILE.read_text("utf-8")
    environments = [services()[name].get("environment", {}) for name in OWN]
    grafana = services()["grafana"]["environment"]

    assert ["", ""] == re.findall(r"\$\{POSTGRES_PASSWORD-([^}]*)\}", text)
    assert "true" == grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"]
    assert "true" == grafana["GF_AUTH_DISABLE_LOGIN_FORM"]
    assert "Viewer" == grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"]
    for environment in environments:
        assert set(environment) <= set(Settings.model_fields) | {"PGPASSWORD"}
        assert not {"HASH_SALT_SECRET", "SERVICE_API_KEY", "KAFKA_OPTIONS"} & set(environment)


@pytest.mark.parametrize("name", list(services()))
def test_every_service_is_confined(name: str) -> None:
    """No capability, no new privilege, no root file system to write, no port but of loopback."""
    one = services()[name]

    assert one.get("read_only") is (name not in NOT_READ_ONLY)
    assert ["ALL"] == one["cap_drop"]
    assert "cap_add" not in one and not one.get("privileged")
    assert ["no-new-privileges:true"] == one["security_opt"]
    assert [] == [port for port in one.get("ports", []) if not port.startswith("127.0.0.1:")]
    assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+[\w.-]*", one["image"])


@pytest.mark.parametrize("name", list(services()))
def test_every_service_is_in_one_profile_and_whole(name: str) -> None:
    """What a service waits for is in its profile and has a health check; what it mounts exists."""
    one, everything = services()[name], yaml.safe_load(FILE.read_text("utf-8"))

    assert {"setup", "single", "cluster"} >= set(one["profiles"])
    for other, how in one.get("depends_on", {}).items():
        assert one["profiles"] == services()[other]["profiles"]
        ends = services()[other].get("restart") == "no"
        expected = "service_completed_successfully" if ends else "service_healthy"
        assert expected == how["condition"]
    if name not in OWN:
        assert {"test", "disable"} & set(one["healthcheck"])
    for volume in one.get("volumes", []):
        source, target, *options = volume.split(":")
        assert (
            (ROOT / source).exists() if source.startswith(".") else source in everything["volumes"]
        )
        assert ["ro"] == options or not source.startswith(".")
        assert target.startswith("/")


@pytest.mark.parametrize("name", OWN)
def test_our_services_run_what_the_product_has(name: str) -> None:
    """Image of this version, a command that the command line takes, time to drain, two volumes."""
    one = services()[name]
    verb, *options = command(name)
    tree = typer.main.get_command(cli)
    found = tree.commands[verb].make_context(verb, options)  # type: ignore[attr-defined]

    assert f"dpdau:{__version__}" == one["image"]
    assert verb == found.info_name
    assert int(one["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS_MAX + STUCK_SECONDS
    assert {"/etc/dpdau", "/data"} == {volume.split(":")[1] for volume in one["volumes"]}
    assert any(entry.startswith("/tmp") for entry in one["tmpfs"])


def test_one_process_owns_each_store() -> None:
    """In a profile no two services share a volume of data, and one service alone consumes."""
    for profile in ("single", "cluster"):
        members = [name for name in OWN if profile in services()[name]["profiles"]]
        owned = [
            volume.split(":")[0]
            for name in members
            for volume in services()[name]["volumes"]
            if volume.split(":")[1] == "/data"
        ]
        assert len(set(owned)) == len(owned)

    assert ["writer"] == [name for name in OWN if "--consume" in command(name)]
    assert services()["writer"]["environment"] == services()["front"]["environment"]
    assert "kafka" == services()["front"]["environment"]["INGEST_MODE"]


def test_the_topics_are_those_of_the_settings() -> None:
    """The topics that are made are the ones that the product uses by default."""
    (script,) = services()["topics"]["command"]
    (named,) = re.findall(r"for topic in (.*); do", script)
    topic = Settings.model_fields["KAFKA_TOPIC"].default

    assert [topic, f"{topic}-dead"] == named.split()


def test_prometheus_asks_the_services() -> None:
    """Each target is a service of the profile, on the port of the image."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    targets = job["static_configs"][0]["targets"]

    assert ["writer:8000", "front:8000"] == targets
    assert "8000" == command("writer")[command("writer").index("--port") + 1]


def test_the_dashboard_has_its_source() -> None:
    """Panels use the data source that is provisioned, and the dashboards' folder is mounted."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))
    provider = yaml.safe_load((folder / "dashboards" / "dpdau.yml").read_text("utf-8"))
    mounts = {volume.split(":")[1] for volume in services()["grafana"]["volumes"]}

    assert {source["datasources"][0]["uid"]} == {
        panel["datasource"]["uid"] for panel in dashboard()["panels"]
    }
    assert provider["providers"][0]["options"]["path"] in mounts
    assert "http://prometheus:9090" == source["datasources"][0]["url"]
