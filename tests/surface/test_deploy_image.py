"""The container image, as far as it can be checked without an engine."""

import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import confined
from dpdau.settings import Settings
from products import product_settings
from simulation.served import Caller, free_port, until

ROOT = Path(__file__).parents[2]
SECRETS = {"HASH_SALT_SECRET", "SERVICE_API_KEY", "SERVICE_DATABASE_URL", "KAFKA_OPTIONS"}
DAY = "2020-01-05"
PORT_OF_IMAGE = "8000"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile: each instruction with what follows it."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, rest in (line.split(None, 1) for line in lines)]


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image that is kept."""
    all_of_them = instructions()
    start = max(index for index, (name, _) in enumerate(all_of_them) if name == "FROM")
    return all_of_them[start:]


def only(name: str) -> str:
    """What the one instruction of a name in the last stage says."""
    (found,) = [rest for one, rest in last_stage() if one == name]
    return found


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path at the root through to the engine."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            sent = line.startswith("!")
    return sent


def health_command(port: int) -> list[str]:
    """The health check of the image, for another port, with this Python."""
    command = json.loads(only("HEALTHCHECK").split("CMD", 1)[1])
    assert command[0] == "python"
    assert PORT_OF_IMAGE in command[-1]
    return [sys.executable, *(part.replace(PORT_OF_IMAGE, str(port)) for part in command[1:])]


class Confined:
    """A service that can write nothing but its data and its /tmp, on a port of loopback."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self._log = root / "log"
        config = root / "etc"
        product_settings(config, DATA_DIR=str(root / "data"))
        for name in ("data", "tmp"):
            (root / name).mkdir(mode=0o700)
        kept = {name: text for name, text in os.environ.items() if name not in SECRETS}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *confined_python(root / "data", root / "tmp"),
                    *("-m", "dpdau", "serve", "--port", str(self.port)),
                ],
                cwd=config,
                env={**kept, "TMPDIR": str(root / "tmp"), "HOME": "/nonexistent"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, "the confined service")

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text("utf-8")

    def ask(self, method: str, path: str, body: object = None) -> int:
        """The status of one request."""
        caller = Caller(self.port)
        try:
            return caller.ask(method, path, body).status
        finally:
            caller.close()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.ask("GET", "/healthz") == 200
        except OSError:
            return False


def confined_python(*folders: Path) -> list[str]:
    """A Python that can write under some folders alone, unbuffered and without caches."""
    script = ROOT / "tests" / "confined.py"
    return [sys.executable, str(script), *map(str, folders), "--", sys.executable, "-B"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Confined]:
    """A confined service, ended in any case."""
    if confined.version() < confined.VERSION_MIN:
        pytest.skip("This kernel has no Landlock that could keep a process from writing.")
    one = Confined(tmp_path)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def test_every_source_is_there_and_sent() -> None:
    """Each COPY from outside names a file that exists and that .dockerignore lets through."""
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from=")
        for source in shlex.split(rest)[:-1]
    ]

    assert {"pyproject.toml", "requirements.lock", "src"} <= set(copied)
    assert [] == [path for path in copied if not (ROOT / path).exists()]
    assert [] == [path for path in copied if not is_sent(path)]


def test_nothing_private_is_sent_to_the_engine() -> None:
    """Settings, data, history and tests stay out of what the engine gets."""
    assert [False] * 7 == [
        is_sent(path)
        for path in ("dpdau.toml", "data", ".git", "tests", ".env", "reports", "uv.lock")
    ]


def test_the_base_is_pinned_by_its_tag() -> None:
    """Both stages begin with one image of a full Python version, which the project accepts."""
    arguments = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    images = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])

    assert {"${PYTHON_IMAGE}"} == images
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (3, 11)
    assert re.fullmatch(r"\d+\.\d+\.\d+", arguments["UV_VERSION"])


def test_only_what_a_service_needs_is_installed_with_hashes() -> None:
    """The install takes declared extras, from the one lock, and refuses what has no hash."""
    installs = " ".join(rest for name, rest in instructions() if name == "RUN")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(re.findall(r"--extra (\w+)", installs))

    assert {"postgres", "kafka", "grpc"} == extras
    assert extras <= set(project["optional-dependencies"])
    assert "--require-hashes" in installs
    assert 2 == installs.count("--constraint requirements.lock")


def test_the_container_is_nobody_and_starts_the_product() -> None:
    """A fixed, numeric user that is not root; a command that the project installs; SIGTERM."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    user, group = only("USER").split(":")

    assert int(user) > 1000 and int(group) > 1000
    assert json.loads(only("ENTRYPOINT"))[0] in project["scripts"]
    assert ["serve", "--host", "0.0.0.0", "--port", PORT_OF_IMAGE] == json.loads(only("CMD"))
    assert "SIGTERM" == only("STOPSIGNAL")
    assert PORT_OF_IMAGE == only("EXPOSE")


def test_the_image_holds_no_secret() -> None:
    """No stage is given a secret, and the only setting that is fixed is where the data is."""
    given = " ".join(rest for name, rest in instructions() if name in {"ARG", "ENV"})
    settings = {name for name in Settings.model_fields if re.search(rf"\b{name}=", given)}

    assert {"DATA_DIR"} == settings
    assert [] == [rest for _, rest in instructions() if "dpdau.toml" in rest]


def test_a_service_writes_only_its_data_and_tmp(service: Confined) -> None:
    """Under a read-only root it takes events, releases, plans and stops; and its health is seen."""
    healthy = subprocess.run(health_command(service.port), check=False)
    statuses = [
        service.ask("POST", "/events", [{"user_id": "ada", "op": "+", "day": DAY}]),
        service.ask("POST", "/plans", {"month": DAY[:7]}),
        service.ask("GET", f"/dau/{DAY}"),
        service.ask("DELETE", "/users/ada"),
        service.ask("GET", "/readyz"),
    ]
    service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(60)
    gone = subprocess.run(health_command(service.port), check=False, stderr=subprocess.DEVNULL)

    assert 0 == healthy.returncode
    assert [202, 201, 200, 202, 200] == statuses, service.log
    assert 0 == code
    assert 0 != gone.returncode


def test_the_confinement_confines(tmp_path: Path) -> None:
    """What the test above relies on: a write elsewhere fails, one in the folder does not."""
    if confined.version() < confined.VERSION_MIN:
        pytest.skip("This kernel has no Landlock that could keep a process from writing.")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    write = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').write_text('x')"
    codes = [
        subprocess.run(
            [*confined_python(inside), "-c", write, folder], check=False, stderr=subprocess.DEVNULL
        ).returncode
        for folder in (inside, outside)
    ]

    assert [0, 1] == codes
    assert ["x"] == [path.name for path in inside.iterdir()]
    assert [] == list(outside.iterdir())
