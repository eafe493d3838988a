"""What `dpdau doctor` looks at; each check says what it found and what to do."""

import datetime as dt
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpdau.cli.places import lasting
from dpdau.cli.session import local_app, settings
from dpdau.errors import DataDirInUseError, DpdauError, outcome
from dpdau.settings import CONFIG_FILE

if TYPE_CHECKING:
    from dpdau.settings import Settings

DISK_FREE_LEAST_BYTES: Final = 1 << 30
DISK_FREE_MIN_BYTES: Final = 100 << 20
KEY_OVERDUE_DAYS_MAX: Final = 1
"""A service replaces a key on the day on which it is due."""
API_KEY_ENDS_DAYS: Final = 14
API_KEY_AGE_DAYS_MAX: Final = 366
BACKUP_AGE_DAYS_MAX: Final = 7
ZONES_AGE_YEARS_MAX: Final = 2
CLOCK_SKEW_SECONDS_MAX: Final = 2.0
CLOCK_DRIFT_SECONDS_MAX: Final = 0.5
DEFAULT_PORT: Final = 8000
_PORT_WAIT_SECONDS: Final = 0.5
_CLOCK_SECONDS: Final = 0.05
_EXTRAS: Final = {
    "card": ("fpdf",),
    "eval": ("matplotlib", "scipy"),
    "grpc": ("grpc", "google.protobuf"),
    "kafka": ("confluent_kafka",),
    "otel": ("opentelemetry",),
    "postgres": ("psycopg",),
    "spark": ("pyspark", "ibis"),
    "warehouse": ("ibis",),
}
"""Extra → what it imports."""


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was found and, unless all is well, what to do."""

    name: str
    status: Status
    message: str
    todo: str = ""
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a check says; `todo` is empty where all is well."""

    message: str
    todo: str = ""
    status: Status = Status.OK


def run_check(name: str) -> Finding:
    """Runs one check; an error of the product is its finding."""
    try:
        found = CHECKS[name]()
    except DpdauError as error:
        todo = f"Mend that, then run: dpdau doctor --check {name}"
        return Finding(name, Status.PROBLEM, error.message, todo, outcome(error).exit_code)
    code = 2 if found.status is Status.PROBLEM else 0
    return Finding(name, found.status, found.message, found.todo, code)


def _warning(message: str, todo: str) -> _Found:
    return _Found(message, todo, Status.WARNING)


def _problem(message: str, todo: str) -> _Found:
    return _Found(message, todo, Status.PROBLEM)


def _settings() -> _Found:
    from dpdau.app import checked_terms

    loaded = settings()
    checked_terms(loaded)
    return _Found(f"readable; zone {loaded.TIMEZONE}, policy {loaded.RELEASE_POLICY}")


def _api_key() -> _Found:
    if settings().SERVICE_API_KEY is None:
        return _problem("SERVICE_API_KEY is not set.", "Run: dpdau init")
    return _Found("SERVICE_API_KEY is set and is no known default")


def _secret() -> _Found:
    from dpdau.app import secret_of

    secret_of(settings())
    return _Found("HASH_SALT_SECRET is set and long enough")


def _permissions() -> _Found:
    folder = settings().DATA_DIR
    if not folder.exists():
        return _warning(f"{folder} is not there yet.", "Run: dpdau init")
    open_paths = [path for path in (CONFIG_FILE, folder, *folder.rglob("*")) if _is_open(path)]
    if open_paths:
        what = f"{CONFIG_FILE} {folder}" if CONFIG_FILE.exists() else str(folder)
        todo = f"Run: chmod -R go-rwx {what}"
        return _problem(f"{open_paths[0]} can be read or written by others.", todo)
    if not os.access(folder, os.W_OK | os.X_OK):
        return _problem(
            f"{folder} cannot be written by this user.", f"Run: chown -R $USER {folder}"
        )
    return _Found(f"{folder} is its owner's alone, and can be written")


def _disk() -> _Found:
    folder = _existing(settings().DATA_DIR)
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free at {folder.absolute()}"
    if free < DISK_FREE_MIN_BYTES:
        return _problem(text, "Make room now: nothing is accepted once it is full.")
    if free < DISK_FREE_LEAST_BYTES:
        return _warning(text, "Make room, or move DATA_DIR to a larger disk.")
    kept = lasting(folder)
    if not kept.lasts:
        return _warning(f"{text}; {kept.words}", "Put DATA_DIR on a disk or a mounted volume.")
    return _Found(text)


def _clock() -> _Found:
    """The wall clock against the monotonic one, files, and the ledger."""
    from dpdau.app import system_clock

    now = system_clock()
    ahead, which = _newest_file(settings().DATA_DIR)
    skew = ahead - now.timestamp()
    todo = "Set the clock, and keep it by NTP; days are closed on it."
    if skew > CLOCK_SKEW_SECONDS_MAX:
        return _problem(f"the clock is {skew:.0f} s behind the time of {which}.", todo)
    began, wall = time.monotonic(), now
    time.sleep(_CLOCK_SECONDS)
    passed = time.monotonic() - began
    drift = abs((system_clock() - wall).total_seconds() - passed)
    if drift > CLOCK_DRIFT_SECONDS_MAX:
        return _warning(f"the clock moved by {drift:.1f} s while it was read.", todo)
    return _Found(f"{now:%Y-%m-%d %H:%M:%S} UTC, steady, and no file is newer")


def _zones() -> _Found:
    from zoneinfo import TZPATH

    from dpdau.app import system_clock

    loaded = settings()
    try:
        data = version("tzdata")
    except PackageNotFoundError:
        data = ""
    local = system_clock().astimezone(loaded.zone)
    text = f"{loaded.TIMEZONE}, now {local:%Y-%m-%d %H:%M}; "
    if any((Path(folder) / loaded.TIMEZONE).exists() for folder in TZPATH):
        return _Found(f"{text}from the system's time zone data")
    if data[:4].isdigit() and local.year - int(data[:4]) > ZONES_AGE_YEARS_MAX:
        todo = "Run: pip install --upgrade tzdata"
        return _warning(f"{text}its rules are of {data[:4]}, from the package tzdata.", todo)
    return _Found(f"{text}from the package tzdata {data}")


def _ledger() -> _Found:
    with local_app(read_only=True) as app:
        report = app.ledger.verify()
    if not report.ok:
        todo = "Keep a copy of DATA_DIR, then run: dpdau audit"
        return _problem(report.findings[0].message, todo)
    return _Found(f"{report.entries} entries, chain and high-water mark match")


def _key_age() -> _Found:
    loaded = settings()
    with local_app(read_only=True) as app:
        age, overdue = app.keys.age_days(), app.keys.overdue_days()
    if overdue > KEY_OVERDUE_DAYS_MAX:
        return _warning(
            f"the pseudonym key is {age} days old and was due {overdue} days ago: nothing had "
            f"{loaded.DATA_DIR} to itself since.",
            "Run `dpdau serve`, or one command alone.",
        )
    left = max(0, loaded.HASH_SALT_ROTATION_DAYS - age)
    return _Found(f"the pseudonym key is {age} days old, not overdue, replaced in {left} days")


def _stored_keys() -> _Found:
    with local_app(read_only=True, reported=False) as app:
        now = app.calendar.clock()
        known = app.ledger.keys.list()
    live = [key for key in known if key.is_live(now) and key.replaced_by is None]
    soon = now + dt.timedelta(days=API_KEY_ENDS_DAYS)
    for key in live:
        if key.expires_at is not None and key.expires_at <= soon:
            return _warning(
                f"the API key {key.key_id} ({key.label}) ends on {key.expires_at:%Y-%m-%d}.",
                f"Make its successor with `dpdau keys rotate {key.key_id}`, and hand it out.",
            )
        if (now - key.created_at).days > API_KEY_AGE_DAYS_MAX:
            return _warning(
                f"the API key {key.key_id} ({key.label}) is older than a year.",
                f"Make its successor with `dpdau keys rotate {key.key_id}`, and hand it out.",
            )
    return _Found(f"{len(live)} stored API keys are live, and none ends soon")


def _backups() -> _Found:
    from dpdau.app import system_clock
    from dpdau.app.watch import newest_backup
    from dpdau.datadir import DataDir

    loaded = settings()
    with local_app(read_only=True, reported=False) as app:
        is_used = bool(app.ledger.states())
    folder = DataDir(loaded.DATA_DIR)
    made = newest_backup(folder)
    if made is None:
        if not is_used:
            return _Found("nothing was charged yet, so there is nothing to lose")
        todo = "Run: dpdau backup --all, and copy it to another machine"
        return _warning(f"there is no backup in {folder.backups}.", todo)
    age = (system_clock().timestamp() - made) / 86_400
    if is_used and age > BACKUP_AGE_DAYS_MAX:
        return _warning(f"the newest backup is {age:.0f} days old.", "Run: dpdau backup --all")
    return _Found(f"the newest backup is {max(age, 0):.1f} days old")


def _ports() -> _Found:
    """Whether the service answers, or could bind where none is."""
    from dpdau.datadir import DataDir

    loaded = settings()
    if loaded.DATA_DIR.exists():
        try:
            DataDir(loaded.DATA_DIR).use().close()
        except DataDirInUseError as error:
            url = error.facts["url"]
            return _Found(error.message) if url is None else _answering(str(url))
    taken = [port for port in _wanted_ports(loaded) if _is_taken(port)]
    if taken:
        todo = f"Stop what listens there, or serve with --port {DEFAULT_PORT + 1}."
        return _warning(f"port {taken[0]} is taken by another program.", todo)
    free = ", ".join(map(str, _wanted_ports(loaded)))
    return _Found(f"free on this machine: {free}")


def _extras() -> _Found:
    loaded = settings()
    here = {name for name, modules in _EXTRAS.items() if all(map(_is_installed, modules))}
    wanted = {
        "grpc": ("GRPC_PORT", loaded.GRPC_PORT is not None),
        "kafka": ("KAFKA_BOOTSTRAP_SERVERS", loaded.KAFKA_BOOTSTRAP_SERVERS is not None),
        "postgres": ("SERVICE_DATABASE_URL", loaded.ledger_url.startswith("postgresql")),
        "spark": ("SPARK_MASTER", loaded.SPARK_MASTER is not None),
    }
    for name, (setting, is_set) in wanted.items():
        if is_set and name not in here:
            todo = f"Run: pip install 'dp-dau-mau[{name}]'"
            return _problem(f"{setting} is set, and the extra {name} is not installed.", todo)
    absent = ", ".join(sorted(set(_EXTRAS) - here)) or "none"
    return _Found(f"installed: {', '.join(sorted(here)) or 'none'}; not installed: {absent}")


def _answering(url: str) -> _Found:
    """What the service that owns the directory says of itself."""
    import httpx

    try:
        status = httpx.get(f"{url}/readyz", timeout=4 * _PORT_WAIT_SECONDS).status_code
    except httpx.HTTPError as error:
        todo = "It may still be starting; else stop that process and start it again."
        return _warning(f"the service at {url} does not answer: {type(error).__name__}.", todo)
    if status != 200:
        return _problem(f"the service at {url} cannot write.", "Read its log; it says why.")
    return _Found(f"the service at {url} is ready")


def _wanted_ports(loaded: "Settings") -> list[int]:
    return [DEFAULT_PORT, *([] if loaded.GRPC_PORT is None else [loaded.GRPC_PORT])]


def _is_taken(port: int) -> bool:
    """Whether something on this machine listens on a port."""
    with socket.socket() as one:
        one.settimeout(_PORT_WAIT_SECONDS)
        return one.connect_ex(("127.0.0.1", port)) == 0


def _is_installed(module: str) -> bool:
    """Whether a module could be imported; its parents are."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _newest_file(folder: Path) -> tuple[float, str]:
    """When the newest file of a directory was written, and which it is."""
    newest, which = 0.0, "nothing"
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            at = path.lstat().st_mtime
        except FileNotFoundError:
            continue
        if at > newest:
            newest, which = at, str(path)
    return newest, which


def _existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    at = folder.absolute()
    while not at.exists():
        at = at.parent
    return at


def _is_open(path: Path) -> bool:
    """Whether group or others may do anything with a path."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISLNK(mode) and bool(mode & 0o077)


CHECKS: Final[dict[str, Callable[[], _Found]]] = {
    "settings": _settings,
    "api-key": _api_key,
    "secret": _secret,
    "permissions": _permissions,
    "disk": _disk,
    "clock": _clock,
    "time-zone": _zones,
    "ledger": _ledger,
    "key-age": _key_age,
    "stored-keys": _stored_keys,
    "backups": _backups,
    "ports": _ports,
    "extras": _extras,
}
