"""The table of settings: order of sources, and one line for each way to get one wrong."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from pydantic import SecretStr

from dpdau.errors import InvalidSettingError
from dpdau.settings import Settings, load, rows
from products import product


def test_defaults_are_those_of_the_contract() -> None:
    """With no file and an empty environment, the defaults hold."""
    loaded = load()

    assert Path("data") == loaded.DATA_DIR
    assert Fraction(3, 10) == loaded.exact("EPSILON_DAU")
    assert Fraction(1, 1_000_000) == loaded.exact("DELTA")
    assert ("plan", 3, Fraction(1, 1_000_000)) == (
        loaded.RELEASE_POLICY,
        loaded.exact("PLAN_EPSILON"),
        loaded.exact("PLAN_DELTA"),
    )
    assert (2, 4, 8, 16, 32) == loaded.RDP_ORDERS
    assert loaded.ledger_url.endswith("/data/ledgers/ledger.sqlite")


def test_environment_wins_over_file_and_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The order is environment, then file, then default."""
    config = tmp_path / "dpdau.toml"
    config.write_text("EPSILON_DAU = 0.2\nGRACE_HOURS = 3\nDIMENSIONS = ['platform']\n")
    monkeypatch.setenv("EPSILON_DAU", "0.1")
    monkeypatch.setenv("RDP_ORDERS", "2, 3")

    loaded = load(config)

    assert Decimal("0.1") == loaded.EPSILON_DAU
    assert 3 == loaded.GRACE_HOURS
    assert ("platform",) == loaded.DIMENSIONS
    assert (2, 3) == loaded.RDP_ORDERS
    sources = {row.name: row.source for row in rows(loaded, config)}
    assert ("environment", str(config), "default") == (
        sources["EPSILON_DAU"],
        sources["GRACE_HOURS"],
        sources["TIMEZONE"],
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPSILON_DAU", "0"),
        ("EPSILON_DAU", "much"),
        ("DELTA", "1"),
        ("DELTA", "0.01"),
        ("RDP_ORDERS", "4,2"),
        ("RDP_ORDERS", "1"),
        ("MAU_WINDOW_DAYS", "65"),
        ("TIMEZONE", "Mars/Olympus"),
        ("TIMEZONE", "Europe"),
        ("TIMEZONE", "../Berlin"),
        ("TIMEZONE", ""),
        ("TIMEZONE", "right/UTC"),
        ("RELEASE_POLICY", "free"),
        ("RETENTION_DAYS", "20"),
        ("DIMENSIONS", "a,a"),
        ("DIMENSIONS", "Not-A-Name"),
        ("SERVICE_API_KEY", "short"),
        ("SERVICE_API_KEY", "changeme-changeme-changeme"),
        ("SKETCH_IMPL", "theta"),
    ],
)
def test_a_bad_value_stops_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error is one line and names the setting."""
    monkeypatch.setenv(name, value)

    with pytest.raises(InvalidSettingError) as caught:
        load()

    assert name in caught.value.message
    assert "\n" not in caught.value.message


def test_a_secret_never_stands_in_an_error_or_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a refused nor an accepted secret is shown."""
    monkeypatch.setenv("SERVICE_API_KEY", "short")
    with pytest.raises(InvalidSettingError) as caught:
        load()
    assert "short" not in caught.value.message

    monkeypatch.setenv("SERVICE_API_KEY", "a-long-and-secret-key-of-ours")
    loaded = load()

    assert "a-long-and-secret" not in repr(loaded)
    assert "a-long-and-secret" not in repr(rows(loaded))


@pytest.mark.parametrize("name", ["W_BOUND", "SKETCH_K"])
def test_a_privacy_setting_of_later_is_not_accepted_in_silence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nobody is left to believe that a setting holds which this version does not read."""
    monkeypatch.setenv(name, "1")

    with pytest.raises(InvalidSettingError, match="not read by this version"):
        load()


@pytest.mark.parametrize("name", ["EPSILON_DUA", "HASH_SALT_SECRETS", "DAY_BUDGET_TOTAL"])
def test_a_misspelled_name_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A name of our kind that is no setting stops the start and suggests the right one."""
    monkeypatch.setenv(name, "1")

    with pytest.raises(InvalidSettingError, match="did you mean"):
        load()


def test_an_unknown_or_broken_file_is_refused(tmp_path: Path) -> None:
    """Unknown names and unreadable TOML in the file are each one error."""
    config = tmp_path / "dpdau.toml"
    config.write_text("COLOR = 'red'\n")
    with pytest.raises(InvalidSettingError, match="COLOR is not a setting"):
        load(config)

    config.write_text("EPSILON_DAU = \n")
    with pytest.raises(InvalidSettingError, match="TOML"):
        load(config)


def test_every_setting_has_a_sentence() -> None:
    """Each row of the table is described."""
    assert [] == [name for name, field in Settings.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("platform", "dimension=value"),
        ("platform=ios,country=de", "one dimension"),
        ("platform=ios,platform=ios", "each once"),
        ("color=red", "a dimension of DIMENSIONS"),
    ],
)
def test_segments_of_a_plan_are_values_of_one_declared_dimension(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """A plan's segments are checked at the start, in one line that names the setting."""
    monkeypatch.setenv("DIMENSIONS", "platform,country")
    monkeypatch.setenv("PLAN_SEGMENTS", text)

    with pytest.raises(InvalidSettingError, match=message) as caught:
        load()
    assert caught.value.message.startswith("PLAN_SEGMENTS: ")


def test_a_plan_budget_out_of_range_stops_the_start(tmp_path: Path) -> None:
    """The plan's budget is built once at the start."""
    with (
        pytest.raises(InvalidSettingError, match="PLAN_EPSILON"),
        product(tmp_path, PLAN_EPSILON=1e-9),
    ):
        pass


def test_a_plan_needs_a_window_above_a_week(tmp_path: Path) -> None:
    """The plan's strategy is for nested windows; the start says so."""
    with (
        pytest.raises(InvalidSettingError, match="MAU_WINDOW_DAYS"),
        product(tmp_path, RELEASE_POLICY="plan", MAU_WINDOW_DAYS=7),
    ):
        pass


def test_ticks_divide_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live counts of a day are evenly spread over its minutes."""
    monkeypatch.setenv("LIVE_TICKS", "96")
    assert (96, None) == (load().LIVE_TICKS, load().LIVE_EPSILON)
    for wrong in ("0", "7", "97", "144"):
        monkeypatch.setenv("LIVE_TICKS", wrong)
        with pytest.raises(InvalidSettingError, match="LIVE_TICKS"):
            load()


def test_a_live_budget_out_of_range_stops_the_start(tmp_path: Path) -> None:
    """The live plan is priced once at the start."""
    with (
        pytest.raises(InvalidSettingError, match="LIVE_EPSILON"),
        product(tmp_path, LIVE_EPSILON=1e-9),
    ):
        pass


def test_options_of_spark_are_names_and_values_that_are_never_shown() -> None:
    """A comma in a value is written with a sign before it; so is no token of a master shown."""
    options = r"spark.executor.memory=8g, spark.jars=a.jar\,b.jar,spark.hush.secret=x=y"
    loaded = load(SPARK_OPTIONS=SecretStr(options), SPARK_MASTER="sc://h/;token=hush;use_ssl=true")
    shown = {row.name: row.value for row in rows(loaded)}

    assert {
        "spark.executor.memory": "8g",
        "spark.jars": "a.jar,b.jar",
        "spark.hush.secret": "x=y",
    } == loaded.spark_options
    assert {} == load().spark_options
    assert "set (hidden)" == shown["SPARK_OPTIONS"]
    assert "sc://h/;token=(hidden);use_ssl=true" == shown["SPARK_MASTER"]


def test_options_of_spark_of_another_form_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not repeated."""
    monkeypatch.setenv("SPARK_OPTIONS", "spark.hush")
    with pytest.raises(InvalidSettingError, match="name=value") as caught:
        load()
    assert "hush" not in str(caught.value)


def test_the_lake_is_under_the_data_directory_unless_it_is_named() -> None:
    """Others read it too, so it is absolute."""
    assert Path("data/lake").absolute() == load().lake_dir
    assert Path("/mnt/lake") == load(LAKE_DIR=Path("/mnt/lake")).lake_dir


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ALERT_WEBHOOK_URL", "http://chat.example/hook-5f1d"),
        ("ALERT_WEBHOOK_URL", "ftp://chat.example/hook-5f1d"),
        ("ALERT_WEBHOOK_URL", "https:///hook-5f1d"),
        ("SMTP_URL", "smtp://user:hook-5f1d@mail.example:25"),
        ("SMTP_URL", "https://hook-5f1d@mail.example"),
        ("SMTP_URL", "smtps://user:hook-5f1d@mail.example:port"),
    ],
)
def test_alerts_leave_this_machine_encrypted(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    """Plain HTTP and plain SMTP go to this machine alone; what is wrong is not repeated."""
    monkeypatch.setenv(name, url)
    with pytest.raises(InvalidSettingError, match=name) as raised:
        load()

    assert "hook-5f1d" not in raised.value.message


def test_places_of_alerts_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a chat is a secret, and so is the password of a mailbox."""
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://[::1]:9/hook-5f1d")
    monkeypatch.setenv("SMTP_URL", "smtp+starttls://user:hook-5f1d@mail.example")
    monkeypatch.setenv("ADMIN_EMAIL", "ops@example.org")
    loaded = load()

    assert "ops@example.org" == loaded.ADMIN_EMAIL
    assert "hook-5f1d" not in str(rows(loaded)) + repr(loaded)


def test_an_address_needs_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that nobody can write to stops the start."""
    monkeypatch.setenv("ADMIN_EMAIL", "ops@example.org")

    with pytest.raises(InvalidSettingError, match="SMTP_URL: expected with ADMIN_EMAIL"):
        load()
