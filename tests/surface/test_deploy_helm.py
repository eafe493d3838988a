"""The Helm chart: it lints, refuses wrong values, and what it renders is one guarded writer."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import go_programs
from dpdau import __version__
from dpdau.api.server import DRAIN_SECONDS_MAX, STUCK_SECONDS
from dpdau.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "dpdau"
VALUES = sorted(CHART.glob("ci/*-values.yaml"))
KUBERNETES = "1.34.0"
SECRETS = {"HASH_SALT_SECRET", "SERVICE_API_KEY", "SERVICE_DATABASE_URL", "KAFKA_OPTIONS"}
SECRETS |= {"ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET", "SMTP_URL"}
pytestmark = pytest.mark.xdist_group("helm")


@pytest.fixture(scope="module")
def helm() -> Path:
    """Helm."""
    return go_programs.helm()


def run(helm: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One run of Helm, with nothing of the user's own."""
    return subprocess.run(
        [helm, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(helm: Path, values: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    """The manifests by their kinds."""
    done = run(
        helm, "template", "one", CHART, "--kube-version", KUBERNETES, "--values", values, *options
    )
    assert done.returncode == 0, done.stderr
    kinds: dict[str, list[dict[str, Any]]] = {}
    for manifest in yaml.safe_load_all(done.stdout):
        kinds.setdefault(manifest["kind"], []).append(manifest)
    return kinds


def pods(kinds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The pod specs of everything that runs."""
    running = kinds["StatefulSet"] + kinds.get("Deployment", [])
    return [one["spec"]["template"]["spec"] for one in running]


def environment(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables of a pod's one container."""
    (container,) = pod["containers"]
    return {variable["name"]: variable for variable in container["env"]}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_chart_lints(helm: Path, values: Path) -> None:
    """`helm lint --strict` finds no fault, for each set of values."""
    done = run(helm, "lint", "--strict", "--kube-version", KUBERNETES, CHART, "--values", values)

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_there_is_one_writer(helm: Path, values: Path) -> None:
    """One StatefulSet of one replica has the volume; nothing else claims one."""
    kinds = rendered(helm, values)
    (writer,) = kinds["StatefulSet"]
    (claim,) = writer["spec"]["volumeClaimTemplates"]

    assert 1 == writer["spec"]["replicas"]
    assert set(claim["spec"]["accessModes"]) <= {"ReadWriteOnce", "ReadWriteOncePod"}
    for deployment in kinds.get("Deployment", []):
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            assert "persistentVolumeClaim" not in volume


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_pods_are_confined(helm: Path, values: Path) -> None:
    """No root, no capability, a root file system that cannot be written, no token, limits."""
    for pod in pods(rendered(helm, values)):
        (container,) = pod["containers"]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}

        assert True is pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 1000
        assert "RuntimeDefault" == pod["securityContext"]["seccompProfile"]["type"]
        assert False is pod["automountServiceAccountToken"]
        assert {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        } == container["securityContext"]
        assert {"/data", "/tmp"} == mounts
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_pods_are_probed_and_given_time_to_stop(helm: Path, values: Path) -> None:
    """Alive by /healthz, ready by /readyz, and a stop waits longer than the service drains."""
    for pod in pods(rendered(helm, values)):
        (container,) = pod["containers"]
        paths = {
            name: container[f"{name}Probe"]["httpGet"]["path"]
            for name in ("startup", "liveness", "readiness")
        }

        assert {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"} == paths
        assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS_MAX + STUCK_SECONDS
        assert "serve" == container["args"][0]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_secrets_are_references_and_settings_exist(helm: Path, values: Path) -> None:
    """The chart makes no Secret, takes all of them from one by name, and sets known settings."""
    kinds = rendered(helm, values)
    chosen = set(yaml.safe_load(values.read_text("utf-8")).get("settings", {}))

    assert "Secret" not in kinds
    for pod in pods(kinds):
        variables = environment(pod)
        taken = {name for name, one in variables.items() if "valueFrom" in one}

        assert SECRETS == taken
        assert {"dpdau-secrets"} == {
            variables[name]["valueFrom"]["secretKeyRef"]["name"] for name in taken
        }
        assert chosen <= set(variables)
        assert set(variables) <= set(Settings.model_fields)


def test_fronts_hold_nothing_and_consume_nothing(helm: Path) -> None:
    """Fronts pass events on; the writer alone consumes; both need the one ledger and Kafka."""
    kinds = rendered(helm, CHART / "ci" / "full-values.yaml")
    (front,) = [one["spec"]["template"]["spec"] for one in kinds["Deployment"]]
    (writer,) = [one["spec"]["template"]["spec"] for one in kinds["StatefulSet"]]

    assert ["serve", "--host=0.0.0.0", "--port=8000"] == front["containers"][0]["args"]
    assert "--consume=4" in writer["containers"][0]["args"]
    for pod in (front, writer):
        url = environment(pod)["SERVICE_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
        assert False is url["optional"]
        assert "kafka" == environment(pod)["INGEST_MODE"]["value"]
    assert "emptyDir" in {volume["name"]: volume for volume in front["volumes"]}["data"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("consume=0", "set consume"),
        ("settings.INGEST_MODE=direct", "settings.INGEST_MODE to kafka"),
    ],
)
def test_fronts_need_a_writer_that_consumes(helm: Path, wrong: str, said: str) -> None:
    """Fronts whose events nobody would take, or that would keep events, are not rendered."""
    full = CHART / "ci" / "full-values.yaml"
    done = run(
        helm, *("template", "one", CHART, "--kube-version", KUBERNETES), "-f", full, "--set", wrong
    )

    assert 0 != done.returncode
    assert said in done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_services_find_their_pods(helm: Path, values: Path) -> None:
    """Each service and disruption budget selects one workload; the policy selects all of them."""
    kinds = rendered(helm, values)
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in kinds["StatefulSet"] + kinds.get("Deployment", [])
    ]
    one_each = [one["spec"]["selector"] for one in kinds["Service"]]
    one_each += [one["spec"]["selector"]["matchLabels"] for one in kinds["PodDisruptionBudget"]]
    (policy,) = kinds["NetworkPolicy"]

    for selector in one_each:
        assert 1 == sum(selector.items() <= each.items() for each in labels)
    for each in labels:
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= each.items()


def test_the_policy_closes_both_ways(helm: Path) -> None:
    """By default nobody outside the namespace gets in, and the service reaches nobody."""
    (policy,) = rendered(helm, CHART / "ci" / "small-values.yaml")["NetworkPolicy"]

    assert ["Ingress", "Egress"] == policy["spec"]["policyTypes"]
    assert [{"podSelector": {}}] == policy["spec"]["ingress"][0]["from"]
    assert [] == policy["spec"]["egress"]


def test_the_monitor_is_asked_for(helm: Path) -> None:
    """A ServiceMonitor is made on request alone; it selects each service but the headless one."""
    small, full = (
        rendered(helm, CHART / "ci" / f"{name}-values.yaml") for name in ("small", "full")
    )
    (monitor,) = full["ServiceMonitor"]
    selected = [
        one["spec"].get("clusterIP")
        for one in full["Service"]
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]

    assert "ServiceMonitor" not in small
    assert selected and set(selected) == {None}
    assert "/metrics" == monitor["spec"]["endpoints"][0]["path"]


def test_the_rules_are_asked_for(helm: Path) -> None:
    """A PrometheusRule is made on request alone: the rules, which point to the given runbook."""
    small, full = (
        rendered(helm, CHART / "ci" / f"{name}-values.yaml") for name in ("small", "full")
    )
    (made,) = full["PrometheusRule"]
    text = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8")
    given = text.replace("docs/runbook.md#", "https://wiki.internal/dpdau/runbook#")

    assert "PrometheusRule" not in small
    assert yaml.safe_load(given) == made["spec"]


@pytest.mark.parametrize(
    "wrong",
    [
        "existingSecret=",
        "settings.HASH_SALT_SECRET=b64:x",
        "settings.SERVICE_API_KEY=x",
        "replicas=2",
        "podDisruptionBudget.maxUnavailable=2",
        "terminationGracePeriodSeconds=20",
        "persistence.accessMode=ReadWriteMany",
    ],
)
def test_wrong_values_are_refused(helm: Path, wrong: str) -> None:
    """No secret, a secret among the settings, a second writer, a short stop: nothing renders."""
    small = CHART / "ci" / "small-values.yaml"
    done = run(
        helm, *("template", "one", CHART, "--kube-version", KUBERNETES), "-f", small, "--set", wrong
    )

    assert 0 != done.returncode
    assert "schema" in done.stderr


def test_the_chart_is_of_this_version() -> None:
    """The chart's application is this version, and its schema is JSON that closes every object."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    assert __version__ == chart["appVersion"]
    assert False is schema["additionalProperties"]
    assert set(defaults) <= set(schema["properties"])
