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

from dpdau.activity.spark.channel import check_channel, is_here
from dpdau.errors import InvalidSettingError, WarehouseUnavailableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONNECT_SECONDS: Final = 10
RETRIES_MAX: Final = 5
"""Of one call to a Spark Connect server that is gone: a quarter of a minute."""
CONNECT_PORT: Final = 15002
MASTER_PORT: Final = 7077
_MASTER: Final = re.compile(r"(local(-cluster)?(\[[\d*, ]+\])?|yarn|(spark|sc|k8s)://.+)")
_CONDITION: Final = re.compile(r"[A-Z][A-Z0-9_.]{2,99}")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_OPTIONS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
    # What it logs of a task that fails may quote rows.
    "spark.log.level": "OFF",
}
_LOCAL_OPTIONS: Final = {
    "spark.ui.enabled": "false",
    # Nothing of a Spark inside this process is for the network.
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


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
    check_master(master)
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise InvalidSettingError(
            "Expected the libraries for Spark, found no pyspark;"
            " get it with: pip install 'dp-dau-mau[spark]'"
        ) from None
    _check_there(master)
    # It tells of each call, and of what is raised again here, with the words of it.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # Spark itself reads it; without it the workers take whatever is called python3.
    python = options.get("spark.pyspark.python", sys.executable)
    os.environ.setdefault("PYSPARK_PYTHON", python)  # noqa: TID251
    kept = {**_OPTIONS, **(_LOCAL_OPTIONS if master.startswith("local") else {}), **options}
    failed = ""
    try:
        if master.startswith("sc://"):
            session = SparkSession.builder.remote(master).create()
            _give_up_soon(session)
            # What a server does not know, it is not told: options of its start are its own.
            session.conf.set("spark.sql.session.timeZone", kept["spark.sql.session.timeZone"])
            for key, value in options.items():
                session.conf.set(key, value)
            return session
        builder = SparkSession.builder.master(master).appName(name)
        for key, value in kept.items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        if session.conf.get("spark.master") == master:
            check_channel(master, session.conf.get)
            return session
    except errors() as error:
        failed = word_of(error)
    if failed:
        raise WarehouseUnavailableError(f"Expected a Spark that starts, found the error {failed}.")
    raise InvalidSettingError("Expected one Spark in a process, found one of another master.")


def check_master(master: str) -> None:
    """Refuses what is no master, or a Spark Connect whose answers could be read on the way.

    Raises:
        InvalidSettingError: It is one of them.
    """
    if not _MASTER.fullmatch(master):
        raise InvalidSettingError(
            "Expected a Spark as local[N], spark://host:port, yarn, k8s://… or sc://host:port,"
            " found something else.",
            setting="SPARK_MASTER",
        )
    if master.startswith("sc://"):
        host, parameters = urlsplit(master).hostname or "", master.split(";")[1:]
        secure = {"use_ssl=true"} & {one.strip().lower() for one in parameters}
        if not (secure or is_here(host)):
            raise InvalidSettingError(
                "Expected sc://host:port/;use_ssl=true for a Spark Connect on another machine,"
                " found it without: the exact counts would be readable on the way.",
                setting="SPARK_MASTER",
            )


def errors() -> tuple[type[Exception], ...]:
    """What Spark raises, by whatever way it is spoken to; its words may quote rows."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    return (PySparkException, Py4JError, ConnectionError)


def word_of(error: Exception) -> str:
    """The name of an error of Spark: its condition, which quotes nothing, or its class."""
    condition = getattr(error, "getCondition", lambda: None)()
    if isinstance(condition, str) and _CONDITION.fullmatch(condition):
        return condition
    return type(error).__name__


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
    ports = {"sc": CONNECT_PORT, "spark": MASTER_PORT}
    if scheme not in ports:
        return
    for place in rest.partition("/")[0].split(","):
        parts = urlsplit(f"//{place}")
        with suppress(OSError, ValueError):
            where = (parts.hostname or "", parts.port or ports[scheme])
            socket.create_connection(where, CONNECT_SECONDS).close()
            return
    raise WarehouseUnavailableError(
        "Expected a Spark that listens at the address of the master, found nobody there."
    )
