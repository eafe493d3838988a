"""Which Spark may be told keys and user ids."""

import pytest

from dpdau.activity.spark.channel import check_channel, is_local
from dpdau.errors import InvalidSettingError

SAFE = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.io.encryption.enabled": "true",
}


@pytest.mark.parametrize(
    "master",
    [
        "local[2]",
        "local-cluster[2,1,1024]",
        "spark://127.0.0.1:7077",
        "spark://localhost:7077,[::1]:7077",
        "sc://spark.example:443/;use_ssl=true",
    ],
)
def test_what_stays_on_this_machine_needs_no_options(master: str) -> None:
    """Loopback is private; a Connect server has its own check."""
    check_channel(master, {}.get)


@pytest.mark.parametrize("master", ["spark://10.0.0.7:7077", "yarn", "k8s://https://k:6443"])
@pytest.mark.parametrize("off", [*SAFE, "all"])
def test_other_machines_need_each_option(master: str, off: str) -> None:
    """Without one of the options it is refused, and the message names what is missing alone."""
    options = {name: value for name, value in SAFE.items() if off not in (name, "all")}
    missing = set(SAFE) - set(options)

    with pytest.raises(InvalidSettingError) as caught:
        check_channel(master, options.get)

    assert missing == {name for name in SAFE if f"{name}=true" in caught.value.message}


@pytest.mark.parametrize(
    ("master", "here"),
    [
        ("local[2]", True),
        ("spark://localhost:7077,[::1]:7077", True),
        ("spark://127.0.0.1", True),
        ("spark://127.0.0.1:7077,10.0.0.7:7077", False),
        ("spark://127.0.0.1.example:7077", False),
        ("yarn", False),
        ("k8s://https://127.0.0.1:6443", False),
    ],
)
def test_a_spark_of_this_machine_is_told_by_its_master(master: str, here: bool) -> None:
    """Only where every address is the loopback; what runs pods elsewhere is not here."""
    assert here is is_local(master)


def test_one_remote_master_of_several_is_enough_to_be_refused() -> None:
    """A list of masters is private only where each of them is here."""
    with pytest.raises(InvalidSettingError):
        check_channel("spark://127.0.0.1:7077,10.0.0.7:7077", {}.get)


@pytest.mark.parametrize("cipher", ["spark.network.crypto.enabled", "spark.ssl.rpc.enabled"])
def test_either_cipher_is_enough(cipher: str) -> None:
    """Spark encrypts its calls in two ways."""
    check_channel(
        "yarn",
        {"spark.authenticate": "TRUE", cipher: "true", "spark.io.encryption.enabled": "true"}.get,
    )
