"""What `dpdau doctor` looks at; each check says what it found and what to do."""

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dpdau.cli.session import local_app, settings
from dpdau.errors import DpdauError, outcome
from dpdau.settings import CONFIG_FILE

DISK_FREE_LEAST_BYTES: Final = 1 << 30
KEY_OVERDUE_DAYS_MAX: Final = 1
"""A service replaces a key on the day on which it is due."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `ok`, `warn` or `fail`."""

    name: str
    status: str
    message: str
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def run_check(name: str) -> Finding:
    """Runs one check; an error of the product is its finding."""
    try:
        status, message = CHECKS[name]()
    except DpdauError as error:
        return Finding(name, "fail", error.message, outcome(error).exit_code)
    return Finding(name, status, message, 2 if status == "fail" else 0)


def _settings() -> tuple[str, str]:
    from dpdau.app import checked_terms

    loaded = settings()
    checked_terms(loaded)
    return "ok", f"readable; zone {loaded.TIMEZONE}, policy {loaded.RELEASE_POLICY}"


def _api_key() -> tuple[str, str]:
    if settings().SERVICE_API_KEY is None:
        return "fail", "SERVICE_API_KEY is not set; run `dpdau init` to make one."
    return "ok", "SERVICE_API_KEY is set and is no known default"


def _secret() -> tuple[str, str]:
    from dpdau.app import secret_of

    secret_of(settings())
    return "ok", "HASH_SALT_SECRET is set and long enough"


def _permissions() -> tuple[str, str]:
    folder = settings().DATA_DIR
    if not folder.exists():
        return "warn", f"{folder} is not there yet; run `dpdau init`."
    open_paths = [path for path in (CONFIG_FILE, folder, *folder.rglob("*")) if _is_open(path)]
    if open_paths:
        what = f"{CONFIG_FILE} {folder}"
        return "fail", f"{open_paths[0]} can be read by others; run: chmod -R go-rwx {what}"
    return "ok", f"{folder} is readable by its owner only"


def _disk() -> tuple[str, str]:
    folder = settings().DATA_DIR
    at = folder if folder.exists() else Path()
    free = shutil.disk_usage(at).free
    text = f"{free / 1e9:.1f} GB free at {at.absolute()}"
    return ("ok", text) if free >= DISK_FREE_LEAST_BYTES else ("warn", f"{text}; make room")


def _ledger() -> tuple[str, str]:
    with local_app(read_only=True) as app:
        report = app.ledger.verify()
    if not report.ok:
        return "fail", f"{report.findings[0].message} Run `dpdau audit`; keep a copy of DATA_DIR."
    return "ok", f"{report.entries} entries, chain and high-water mark match"


def _key_age() -> tuple[str, str]:
    loaded = settings()
    with local_app(read_only=True) as app:
        age, overdue = app.keys.age_days(), app.keys.overdue_days()
    if overdue > KEY_OVERDUE_DAYS_MAX:
        return "warn", (
            f"the pseudonym key is {age} days old and was due {overdue} days ago: nothing had "
            f"{loaded.DATA_DIR} to itself since. Run `dpdau serve`, or one command alone."
        )
    return "ok", f"the pseudonym key is {age} days old, and not overdue"


def _is_open(path: Path) -> bool:
    """Whether group or others may do anything with a path."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISLNK(mode) and bool(mode & 0o077)


CHECKS: Final[dict[str, Callable[[], tuple[str, str]]]] = {
    "settings": _settings,
    "api-key": _api_key,
    "secret": _secret,
    "permissions": _permissions,
    "disk": _disk,
    "ledger": _ledger,
    "key-age": _key_age,
}
