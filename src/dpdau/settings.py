"""The only reader of the environment: one table of settings with type, default, unit and sentence.

Order: environment, then `dpdau.toml`, then the default. A setting that is unknown, malformed or out
of range stops the start with one line that names it.
"""

import difflib
import math
import os
import re
import tomllib
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dpdau.domain import Segment
from dpdau.errors import InvalidPlanError, InvalidSettingError

CONFIG_FILE: Final = Path("dpdau.toml")
_NOT_YET: Final = frozenset({"W_BOUND", "SKETCH_K"})
"""Privacy settings of a later version: who sets one must not believe that it holds."""
_OWN_NAMES: Final = re.compile(r"^(EPSILON_\w+|HASH_SALT_\w+|\w+_BUDGET_TOTAL)$")
_KNOWN_DEFAULTS: Final = ("{{", "changeme", "change-me", "placeholder", "example", "your-api-key")
API_KEY_LENGTH_MIN: Final = 16
MINUTES_OF_A_DAY: Final = 24 * 60
_PASSWORD: Final = re.compile(r"(://[^:/@]*:|[?&]password=)[^&@]+?(@|&|$)")
"""The password in a URL, which may not be shown."""
_TOKEN: Final = re.compile(r"(;token=)[^;]+")
"""The same for a Spark Connect server."""
_NO_ZONES: Final = frozenset({"posix", "posixrules", "right"})
"""Zones a second time; those of `right` count leap seconds, which no clock here does."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_COMMA: Final = re.compile(r"(?<!\\),")
_TOPIC: Final = r"^[A-Za-z0-9._-]{1,249}$"
_NAME_OF_DIMENSION: Final = re.compile(r"^[a-z][a-z0-9_]{0,63}$")


def _split(value: object) -> object:
    """Comma-separated text as a list; other shapes pass through."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _known_zone(name: str) -> str:
    # Not by the list of all zones: that opens hundreds of files at each start.
    with suppress(ZoneInfoNotFoundError, ValueError, OSError):
        if ZoneInfo(name).key.split("/")[0] not in _NO_ZONES:
            return name
    raise ValueError("expected an IANA time zone such as UTC or Europe/Berlin")


def _valid_dimensions(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _NAME_OF_DIMENSION.match(name):
            raise ValueError("expected names of a-z, 0-9 and _, at most 64 long")
    if len(set(names)) != len(names):
        raise ValueError("expected each name once")
    return names


def _one_dimension(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        dimensions = {Segment.parse(text).dimension for text in texts}
    except InvalidPlanError:
        raise ValueError("expected dimension=value, comma-separated") from None
    if len(dimensions) > 1 or len(set(texts)) != len(texts):
        raise ValueError("expected values of one dimension, each once")
    return texts


def _divides_a_day(ticks: int) -> int:
    if MINUTES_OF_A_DAY % ticks:
        raise ValueError(f"expected a divisor of {MINUTES_OF_A_DAY}")
    return ticks


def _rising_orders(orders: tuple[int, ...]) -> tuple[int, ...]:
    if not orders or list(orders) != sorted(set(orders)) or orders[0] < 2:
        raise ValueError("expected rising whole orders of 2 or more")
    return orders


def _usable_key(key: SecretStr | None) -> SecretStr | None:
    if key is None:
        return None
    text = key.get_secret_value().lower()
    if len(text) < API_KEY_LENGTH_MIN:
        raise ValueError(f"expected {API_KEY_LENGTH_MIN} characters or more, found {len(text)}")
    if any(word in text for word in _KNOWN_DEFAULTS):
        raise ValueError("found a known default; run `dpdau init` to make a key")
    return key


def _leaving(url: SecretStr | None, *, safe: tuple[str, ...], plain: str) -> SecretStr | None:
    """Alerts name budgets and keys: they leave this machine encrypted or not at all."""
    if url is not None:
        parts = urlsplit(url.get_secret_value())
        allowed = {*safe, plain} if parts.hostname in _LOOPBACK else {*safe}
        if not parts.hostname or parts.scheme not in allowed or parts.port == 0:
            raise ValueError(f"expected {' or '.join(safe)}, or {plain} to this machine")
    return url


_MAIL: Final = partial(_leaving, safe=("smtp+starttls", "smtps"), plain="smtp")


def _named_values(options: SecretStr | None) -> SecretStr | None:
    if options is not None and not all(
        name.strip() and found for name, found, _ in (one.partition("=") for one in _parts(options))
    ):
        raise ValueError("expected name=value, comma-separated")
    return options


def _parts(options: SecretStr) -> list[str]:
    """What stands between the commas; one in a value is written `\\,`."""
    parts = _COMMA.split(options.get_secret_value())
    return [part.replace("\\,", ",") for part in parts if part.strip()]


Epsilon = Annotated[Decimal, Field(gt=0, le=50)]
Delta = Annotated[Decimal, Field(gt=0, lt=1)]


class Settings(BaseSettings):
    """Every setting, one row each; `docs/reference/settings.md` is generated from this table."""

    model_config = SettingsConfigDict(
        case_sensitive=True, extra="forbid", frozen=True, enable_decoding=False
    )

    DATA_DIR: Path = Field(
        Path("data"), description="Folder of the activity store, ledger, keyring and reports."
    )
    SERVICE_API_KEY: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        None, description="Bootstrap admin API key of the service; 16 characters or more."
    )
    HASH_SALT_SECRET: SecretStr | None = Field(
        None,
        description="Secret of 32 bytes or more, written b64:…, that keys every pseudonym.",
    )
    HASH_SALT_ROTATION_DAYS: int = Field(
        90, ge=1, description="Days after which the key of the pseudonyms is replaced by itself."
    )
    EPSILON_DAU: Epsilon = Field(Decimal("0.3"), description="ε of one DAU release.")
    EPSILON_WAU: Epsilon = Field(Decimal("0.5"), description="ε of one WAU release, at DELTA.")
    EPSILON_MAU: Epsilon = Field(
        Decimal("0.5"), description="ε of one MAU (or any-window) release, at DELTA."
    )
    DELTA: Delta = Field(
        Decimal("1e-6"),
        le=Decimal("1e-3"),
        description="δ of WAU and MAU releases and of their monthly caps.",
    )
    ADVANCED_DELTA: Delta = Field(
        Decimal("1e-7"), description="Extra δ of the reported advanced-composition figure."
    )
    RDP_ORDERS: Annotated[
        tuple[int, ...], BeforeValidator(_split), AfterValidator(_rising_orders)
    ] = Field((2, 4, 8, 16, 32), description="Orders of the reported Rényi curve.")
    DAU_BUDGET_TOTAL: Epsilon = Field(
        Decimal("3.0"), description="Cap on ε of all DAU releases of one calendar month."
    )
    WAU_BUDGET_TOTAL: Epsilon = Field(
        Decimal("3.5"), description="Cap on ε, at DELTA, of all WAU releases of one month."
    )
    MAU_BUDGET_TOTAL: Epsilon = Field(
        Decimal("3.5"), description="Cap on ε, at DELTA, of all MAU releases of one month."
    )
    RELEASE_POLICY: Literal["plan", "on_demand"] = Field(
        "plan",
        description="How numbers are paid for: plan charges a month once, on_demand each one.",
    )
    PLAN_EPSILON: Epsilon = Field(
        Decimal("3.0"), description="ε of a month plan, at PLAN_DELTA: all its numbers together."
    )
    PLAN_DELTA: Delta = Field(Decimal("1e-6"), le=Decimal("1e-3"), description="δ of a month plan.")
    PLAN_SEGMENTS: Annotated[
        tuple[str, ...], BeforeValidator(_split), AfterValidator(_one_dimension)
    ] = Field(
        (),
        description="Values of one declared dimension that a month plan publishes beside the "
        "total, as dimension=value, comma-separated.",
    )
    LIVE_EPSILON: Epsilon | None = Field(
        None,
        description="ε of all live counts of a month, at PLAN_DELTA; unset turns the live counter "
        "off.",
    )
    LIVE_TICKS: Annotated[int, AfterValidator(_divides_a_day)] = Field(
        24, ge=1, le=96, description="Live counts of a day, evenly spread; divides 1440 minutes."
    )
    MAU_WINDOW_DAYS: int = Field(30, ge=1, le=64, description="Days of the MAU window.")
    TIMEZONE: Annotated[str, AfterValidator(_known_zone)] = Field(
        "UTC", description="Time zone in which a day begins and ends."
    )
    GRACE_HOURS: int = Field(
        24, ge=0, le=24 * 31, description="Hours after the end of a day until it closes."
    )
    RETENTION_DAYS: int | None = Field(
        None,
        ge=1,
        description="Days that activity is kept (unset: for ever); no less than the MAU window, "
        "the grace hours and one day together.",
    )
    DIMENSIONS: Annotated[
        tuple[str, ...], BeforeValidator(_split), AfterValidator(_valid_dimensions)
    ] = Field((), description="Metadata keys that may be used as segments, comma-separated.")
    SKETCH_IMPL: Literal["exact", "set"] = Field(
        "exact", description="How distinct users are counted; `set` is another word for exact."
    )
    SERVICE_DATABASE_URL: str | None = Field(
        None,
        description="URL of the ledger: sqlite:///PATH, or postgresql+psycopg://… for several "
        "replicas; unset is SQLite under DATA_DIR.",
    )
    LEDGER_LOCK_TIMEOUT_SECONDS: float = Field(
        30,
        gt=0,
        le=600,
        description="Seconds that a charge waits for another writer of the ledger.",
    )
    LEDGER_STATEMENT_TIMEOUT_SECONDS: float = Field(
        60, gt=0, le=3600, description="Seconds that one statement may take in Postgres."
    )
    INGEST_MODE: Literal["direct", "kafka"] = Field(
        "direct",
        description="Where events that are sent here go: into the store, or to Kafka first.",
    )
    KAFKA_BOOTSTRAP_SERVERS: str | None = Field(
        None, description="Addresses of the Kafka brokers, host:port, comma-separated."
    )
    KAFKA_TOPIC: Annotated[str, Field(pattern=_TOPIC)] = Field(
        "dpdau-events", description="Kafka topic of events."
    )
    KAFKA_GROUP: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "dpdau", description="Kafka consumer group; one for each activity store."
    )
    KAFKA_DEAD_LETTER_TOPIC: Annotated[str, Field(pattern=rf"{_TOPIC}|^$")] | None = Field(
        None,
        description="Kafka topic for messages that cannot be taken (unset: KAFKA_TOPIC with -dead "
        "behind it); empty for none.",
    )
    KAFKA_OPTIONS: SecretStr | None = Field(
        None,
        description="More options of librdkafka, as TLS and SASL, name=value, comma-separated; "
        "never shown.",
    )
    SPARK_MASTER: str | None = Field(
        None,
        description="Spark that keeps and counts the activity, as local[N], spark://host:port, "
        "yarn, k8s://… or sc://host:port; unset is the embedded store.",
    )
    LAKE_DIR: Path | None = Field(
        None,
        description="Folder of the activity under SPARK_MASTER, the same to every executor; unset "
        "is lake under DATA_DIR.",
    )
    SPARK_OPTIONS: Annotated[SecretStr | None, AfterValidator(_named_values)] = Field(
        None, description="Options of Spark, name=value, comma-separated; never shown."
    )
    SERVICE_HOST: str | None = Field(
        None, description="URL of a service that commands speak to instead of opening DATA_DIR."
    )
    GRPC_PORT: int | None = Field(
        None, ge=1, le=65535, description="Port of the gRPC service beside HTTP; unset serves none."
    )
    GRPC_TLS_CERTIFICATE: Path | None = Field(
        None, description="PEM file of the certificate chain of the gRPC service."
    )
    GRPC_TLS_KEY: Path | None = Field(
        None, description="PEM file of the private key of GRPC_TLS_CERTIFICATE."
    )
    ALERT_WEBHOOK_URL: Annotated[
        SecretStr | None, AfterValidator(partial(_leaving, safe=("https",), plain="http"))
    ] = Field(None, description="URL that alerts are posted to as JSON; https, or this machine.")
    ALERT_WEBHOOK_SECRET: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        None, description="Secret that signs each post to ALERT_WEBHOOK_URL; 16 characters or more."
    )
    ADMIN_EMAIL: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = Field(
        None, description="Address that alerts are sent to; needs SMTP_URL."
    )
    SMTP_URL: Annotated[SecretStr | None, AfterValidator(_MAIL)] = Field(
        None,
        description="Mail server, smtp+starttls://USER:PASSWORD@HOST:587 or smtps://…:465; "
        "smtp://localhost:25 on this machine alone.",
    )
    OTEL_EXPORTER_OTLP_ENDPOINT: str | None = Field(
        None, description="OpenTelemetry collector for traces and metrics, http://HOST:4318."
    )
    OTEL_METRIC_EXPORT_INTERVAL: int = Field(
        60_000, ge=100, description="Milliseconds between two exports of metrics."
    )
    OTEL_SDK_DISABLED: bool = Field(default=False, description="Turns OpenTelemetry off.")
    BACKUP_PASSPHRASE: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        None, description="Passphrase of encrypted backups; 16 characters or more."
    )
    EXPERIMENT_ID: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Folder of an experiment's results and plots under DATA_DIR.",
    )
    DEFAULT_SEED: int = Field(20260101, ge=0, description="Seed of synthetic data; never of noise.")

    @model_validator(mode="after")
    def _retention_covers_windows(self) -> Self:
        """Activity that an open window still needs must not be purged."""
        least = self.MAU_WINDOW_DAYS + math.ceil(self.GRACE_HOURS / 24) + 1
        if self.RETENTION_DAYS is not None and self.RETENTION_DAYS < least:
            raise ValueError(
                f"RETENTION_DAYS: expected {least} or more, found {self.RETENTION_DAYS}"
            )
        return self

    @model_validator(mode="after")
    def _segments_are_declared(self) -> Self:
        """A plan counts segments of a dimension that events carry."""
        for text in self.PLAN_SEGMENTS:
            if Segment.parse(text).dimension not in self.DIMENSIONS:
                raise ValueError(f"PLAN_SEGMENTS: expected a dimension of DIMENSIONS, found {text}")
        return self

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        """One of the two alone would serve without TLS, or not at all."""
        if (self.GRPC_TLS_CERTIFICATE is None) != (self.GRPC_TLS_KEY is None):
            raise ValueError("GRPC_TLS_KEY: expected with GRPC_TLS_CERTIFICATE, or neither")
        return self

    @model_validator(mode="after")
    def _mail_has_a_server(self) -> Self:
        """An address without a server would never hear of anything."""
        if self.ADMIN_EMAIL is not None and self.SMTP_URL is None:
            raise ValueError("SMTP_URL: expected with ADMIN_EMAIL")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first; `load` passes the file's values in as the lower source."""
        return env_settings, init_settings

    @property
    def zone(self) -> ZoneInfo:
        """`TIMEZONE` as a zone."""
        return ZoneInfo(self.TIMEZONE)

    @property
    def ledger_url(self) -> str:
        """`SERVICE_DATABASE_URL`, or SQLite under `DATA_DIR`."""
        if self.SERVICE_DATABASE_URL is not None:
            return self.SERVICE_DATABASE_URL
        return f"sqlite:///{(self.DATA_DIR / 'ledgers' / 'ledger.sqlite').absolute()}"

    @property
    def lake_dir(self) -> Path:
        """`LAKE_DIR`, or `lake` under `DATA_DIR`; absolute, for others read it too."""
        return (self.LAKE_DIR or self.DATA_DIR / "lake").absolute()

    @property
    def spark_options(self) -> dict[str, str]:
        """`SPARK_OPTIONS` as names and values."""
        parts = () if self.SPARK_OPTIONS is None else _parts(self.SPARK_OPTIONS)
        pairs = (one.partition("=") for one in parts)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def exact(self, name: str) -> Fraction:
        """A decimal setting as the exact fraction that was written."""
        value = getattr(self, name)
        assert isinstance(value, Decimal), f"{name} is a decimal setting"
        return Fraction(value)


class SettingRow(BaseModel):
    """One row of the generated settings page and of `dpdau config show`."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    default: str
    source: str
    description: str


def load(config_file: Path = CONFIG_FILE, **overrides: Any) -> Settings:
    """Reads the environment, then `config_file`, then the defaults.

    Args:
        config_file: A TOML file of `NAME = value` lines; may be absent.
        **overrides: Values of a command's own options; they win over everything.

    Raises:
        InvalidSettingError: One line that names the first setting that is wrong.
    """
    _refuse_unknown_environment()
    values = _read_file(config_file)
    try:
        loaded = Settings(**values)
        return loaded.model_copy(update=overrides) if overrides else loaded
    except ValidationError as error:
        raise InvalidSettingError(_first_line(error)) from None


def rows(settings: Settings, config_file: Path = CONFIG_FILE) -> list[SettingRow]:
    """The table with values (secrets hidden) and where each came from."""
    in_file = _read_file(config_file)
    return [
        SettingRow(
            name=name,
            value=_shown(getattr(settings, name)),
            default=_shown(field.default),
            source="environment"
            if name in os.environ
            else str(config_file)
            if name in in_file
            else "default",
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _read_file(path: Path) -> dict[str, Any]:
    """The values of the file, checked for unknown names."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSettingError(f"{path}: expected readable TOML, found: {error}.") from None
    for name in values:
        _refuse_unknown(name, f"{path}: ")
    return {
        name: str(value) if isinstance(value, float) else value for name, value in values.items()
    }


def _refuse_unknown_environment() -> None:
    """A misspelled name of ours in the environment would otherwise turn nothing."""
    for name in os.environ:
        if name in _NOT_YET or _OWN_NAMES.match(name):
            _refuse_unknown(name, "environment: ")


def _refuse_unknown(name: str, where: str) -> None:
    if name in _NOT_YET:
        raise InvalidSettingError(f"{where}{name} is not read by this version.", setting=name)
    if name not in Settings.model_fields:
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise InvalidSettingError(f"{where}{name} is not a setting{hint}", setting=name)


def _first_line(error: ValidationError) -> str:
    """One line for the first problem; never the value of a secret."""
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    name = str(first["loc"][0])
    is_secret = SecretStr in get_args(Settings.model_fields[name].annotation)
    if is_secret or name == "SERVICE_DATABASE_URL":
        return f"{name}: {message}."
    return f"{name}: {message}; found {first['input']!r}."


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, SecretStr):
        return "set (hidden)"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value) or "none"
    return _TOKEN.sub(r"\1(hidden)", _PASSWORD.sub(r"\1(hidden)\2", str(value)))
