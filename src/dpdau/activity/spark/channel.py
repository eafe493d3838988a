"""Whether what a Spark on other machines is told can be read on the way."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from dpdau.errors import InvalidSettingError

__all__ = ["check_channel", "is_here", "is_local"]

_AUTHENTICATED: Final = "spark.authenticate"
_ENCRYPTED: Final = ("spark.network.crypto.enabled", "spark.ssl.rpc.enabled")
_SPILLED: Final = "spark.io.encryption.enabled"


def check_channel(master: str, option: Callable[[str, str], str | None]) -> None:
    """Refuses a Spark on other machines that takes anybody's word, or is spoken to in the open.

    Pseudonyms, the keys that make them and user ids go from machine to machine, and to the disks of
    the executors. A Spark Connect server is spoken to over TLS (see `session.check_master`); how it
    speaks to its executors is its operator's.

    Args:
        master: The master of a session.
        option: Gives an option of the Spark that runs, or what it is asked to give without one.

    Raises:
        InvalidSettingError: It does; the message names the options.
    """
    if master.startswith("sc://") or is_local(master):
        return

    def is_on(name: str) -> bool:
        return (option(name, "false") or "").lower() == "true"

    missing = [name for name in (_AUTHENTICATED, _SPILLED) if not is_on(name)]
    if not any(is_on(name) for name in _ENCRYPTED):
        missing.insert(1 if _AUTHENTICATED in missing else 0, _ENCRYPTED[0])
    if missing:
        wanted = ", ".join(f"{name}=true" for name in missing)
        raise InvalidSettingError(
            f"Expected a Spark on other machines with {wanted}, found it without: user ids, keys"
            " and pseudonyms would be readable on the way. Set them in SPARK_OPTIONS or in"
            " spark-defaults.conf, for the master and the workers too.",
            setting="SPARK_OPTIONS",
        )


def is_local(master: str) -> bool:
    """Whether all of a Spark is on this machine, where nobody can listen."""
    scheme, _, places = master.partition("://")
    if scheme == "spark":
        return all(is_here(urlsplit(f"//{one}").hostname or "") for one in places.split(","))
    return scheme.startswith("local")


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    with suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"
