"""A Spark to count with: how it is reached, and the words for what it raises.

One code path for `local[N]`, `spark://host:port`, `yarn`, `k8s://…` and `sc://host:port`, so only
what Spark Connect has may be asked of a session. Spark is imported inside functions: it takes a
second, and most commands have no use for it.
"""

import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dpdau.activity.spark.channel import check_channel, is_here, is_local
from dpdau.errors import InvalidSettingError, WarehouseUnavailableError

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client import DefaultChannelBuilder

CONNECT_SECONDS: Final = 10
RETRIES_MAX: Final = 5
"""Of one call to a Spark Connect server that is gone: a quarter of a minute."""
MASTER_PORT: Final = 7077
_MASTER: Final = re.compile(r"(local(-cluster)?(\[[\d*, ]+\])?|yarn|(spark|sc|k8s)://.+)")
_CONDITION: Final = re.compile(r"[A-Z][A-Z0-9_.]{2,99}")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_OPTIONS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
    # What it logs of a task that fails may quote rows.
    "spark.log.level": "OFF",
    # Both show plans and numbers of rows, which follow exact counts.
    "spark.ui.enabled": "false",
    "spark.eventLog.enabled": "false",
}
_LOCAL_OPTIONS: Final = {
    # Nothing of a Spark on this machine is for the network.
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # What is shuffled and spilled has user ids, in files that everybody here may read.
    "spark.io.encryption.enabled": "true",
}
# They quote the row that a query fails at; one of a module that talks of each call.
_LOGGERS: Final = ("SQLQueryContextLogger", "DataFrameQueryContextLogger", "py4j")


def connect(
    master: str, *, name: str = "dpdau", options: Mapping[str, str] = _NONE
) -> "SparkSession":
    """A session of a Spark; a process has one that is not `sc://`, and it is given again.

    Args:
        master: `local[N]`, `spark://host:port`, `yarn`, `k8s://…`, or `sc://host:port` for Spark
            Connect, which Sail speaks too.
        name: What the application is called there.
        options: Options of Spark; they win over those of this module.

    Raises:
        InvalidSettingError: It is no master, pyspark is not installed, this process has a Spark
            of another master, or exact counts could be read on the way.
        WarehouseUnavailableError: Nobody answers there, or Spark does not start.
    """
    _check_installed()
    check_master(master)
    _check_there(master)
    for one in _LOGGERS:
        logging.getLogger(one).setLevel(logging.CRITICAL + 1)
    failed = ""
    try:
        if master.startswith("sc://"):
            return _remote(master, options)
        return _classic(master, name, options)
    except errors() as error:
        failed = word_of(error)
    raise WarehouseUnavailableError(f"Expected a Spark that starts, found the error {failed}.")


def check_master(master: str) -> None:
    """Refuses what is no master, or a Spark Connect whose answers could be read on the way.

    Raises:
        InvalidSettingError: It is one of them.
    """
    check_form(master)
    if master.startswith("sc://"):
        client = _client(master)
        if not (client.secure or is_here(client.host)):
            raise InvalidSettingError(
                "Expected sc://host:port/;use_ssl=true for a Spark Connect on another machine,"
                " found it without: the exact counts would be readable on the way.",
                setting="SPARK_MASTER",
            )


def check_form(master: str) -> None:
    """Refuses what is no master, without a look at what a client would make of it.

    Raises:
        InvalidSettingError: It is none.
    """
    if not _MASTER.fullmatch(master):
        raise InvalidSettingError(
            "Expected a Spark as local[N], spark://host:port, yarn, k8s://… or sc://host:port,"
            " found something else.",
            setting="SPARK_MASTER",
        )


def errors() -> tuple[type[Exception], ...]:
    """What Spark raises, by whatever way it is spoken to; its words may quote rows."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    return (PySparkException, Py4JError, ConnectionError)


def word_of(error: Exception) -> str:
    """The name of an error of Spark: its condition, which quotes nothing, or its class."""
    thrown, condition = getattr(error, "java_exception", error), None
    with suppress(*errors()):
        condition = getattr(thrown, "getCondition", lambda: None)()
    if isinstance(condition, str) and _CONDITION.fullmatch(condition):
        return condition
    return type(error).__name__


def _remote(master: str, options: Mapping[str, str]) -> "SparkSession":
    """A session of a Spark Connect server."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(master).create()
    try:
        _give_up_soon(session)
        # What a server does not know, it is not told: options of its start are its own.
        session.conf.set("spark.sql.session.timeZone", _OPTIONS["spark.sql.session.timeZone"])
        for key, value in options.items():
            session.conf.set(key, value)
    except BaseException:
        session.stop()
        raise
    return session


def _classic(master: str, name: str, options: Mapping[str, str]) -> "SparkSession":
    """The session of this process.

    Raises:
        InvalidSettingError: It is one of another master, or exact counts could be read on the way.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    # Spark itself reads it; without it the workers take whatever is called python3.
    python = options.get("spark.pyspark.python", sys.executable)
    os.environ.setdefault("PYSPARK_PYTHON", python)  # noqa: TID251
    builder = SparkSession.builder.master(master).appName(name)
    kept = {**_OPTIONS, **(_LOCAL_OPTIONS if is_local(master) else {}), **options}
    for key, value in kept.items():
        builder = builder.config(key, value)
    is_new = SparkContext._active_spark_context is None
    session = builder.getOrCreate()
    try:
        _check_running(session.sparkContext, master)
    except BaseException:
        if is_new:
            session.stop()
        raise
    return session


def _check_running(spark: "SparkContext", master: str) -> None:
    """Sees what runs; options of a session say nothing of how a Spark that runs already speaks.

    Raises:
        InvalidSettingError: It is one of another master, or exact counts could be read on the way.
    """
    if spark.master != master:
        raise InvalidSettingError("Expected one Spark in a process, found one of another master.")
    check_channel(master, spark.getConf().get)


def _client(master: str) -> "DefaultChannelBuilder":
    """What the client itself reads in an address of Spark Connect.

    Raises:
        InvalidSettingError: It cannot be read, or there is no client.
    """
    _check_installed()
    from pyspark.sql.connect.client import DefaultChannelBuilder

    try:
        return DefaultChannelBuilder(master)
    except ValueError:
        # Its text repeats the address.
        raise InvalidSettingError(
            "Expected a Spark Connect as sc://host:port/;name=value, found something else.",
            setting="SPARK_MASTER",
        ) from None


def _check_installed() -> None:
    """Refuses to go on without the libraries.

    Raises:
        InvalidSettingError: They are not there.
    """
    try:
        import pyspark.sql  # noqa: F401
    except ImportError:
        raise InvalidSettingError(
            "Expected the libraries for Spark, found no pyspark;"
            " get it with: pip install 'dp-dau-mau[spark]'"
        ) from None


def _give_up_soon(session: "SparkSession") -> None:
    """Has the client of a server that is gone say so; by itself it tries for ten minutes."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    session.client.set_retry_policies([DefaultPolicy(max_retries=RETRIES_MAX)])
    # An error says the same.
    warnings.filterwarnings("ignore", r"\[RETRIES_EXCEEDED\]", UserWarning)


def _check_there(master: str) -> None:
    """Sees that somebody listens, which Spark itself would wait minutes for.

    Raises:
        WarehouseUnavailableError: Nobody does.
    """
    scheme, _, rest = master.partition("://")
    if scheme == "sc":
        rest = _client(master).endpoint
    elif scheme != "spark":
        return
    for place in rest.split(","):
        parts = urlsplit(f"//{place}")
        with suppress(OSError, ValueError):
            where = (parts.hostname or "", parts.port or MASTER_PORT)
            socket.create_connection(where, CONNECT_SECONDS).close()
            return
    raise WarehouseUnavailableError(
        "Expected a Spark that listens at the address of the master, found nobody there."
    )
