"""Where a ledger is: a file of its own, or a database on a server."""

from pathlib import Path
from typing import Final

from sqlalchemy import URL, exc, make_url

from dpdau.errors import InvalidSettingError

POSTGRES: Final = "postgresql+psycopg"
_ENCODED: Final = (
    "write reserved characters of a user or password percent-encoded, as %40 for @ and %2F for /"
)
_EXPECTED: Final = f"Expected a ledger URL as sqlite:///PATH or {POSTGRES}://USER@HOST/DATABASE"


def ledger_url(url: str) -> URL:
    """A ledger URL in its parts.

    Raises:
        InvalidSettingError: It is neither `sqlite:///PATH` nor `postgresql+psycopg://…`. A ledger
            in memory would forget what it spent, so it is refused.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # The text of the error may repeat a part of a password.
        raise InvalidSettingError(
            f"{_EXPECTED}, found one that cannot be parsed; {_ENCODED}."
        ) from None
    if parsed.drivername == POSTGRES:
        if not parsed.database:
            raise InvalidSettingError(f"{_EXPECTED}, found one that names no database.")
        if "@" in (parsed.host or "") or "@" in parsed.database:
            raise InvalidSettingError(f"{_EXPECTED}, found one with more than one @; {_ENCODED}.")
        return parsed
    # The URL may hold a password, so only its dialect is shown.
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise InvalidSettingError(
            f"{_EXPECTED}, found a URL of {parsed.drivername!r} that names no ledger."
        )
    if parsed.query:
        raise InvalidSettingError(f"{_EXPECTED}, found a file with options.")
    return parsed


def ledger_file(url: str) -> Path | None:
    """The file that a ledger URL names; None where the ledger is on a server.

    Raises: What `ledger_url` raises.
    """
    parsed = ledger_url(url)
    return None if parsed.drivername == POSTGRES else Path(str(parsed.database))


def ledger_path(url: str) -> Path:
    """The file that a ledger URL names, for what is done to files alone.

    Raises:
        InvalidSettingError: The ledger is on a server, or the URL is not one of a ledger.
    """
    path = ledger_file(url)
    if path is None:
        raise InvalidSettingError(
            "Expected a ledger in a file, found one in Postgres, where a copy is not put in its "
            "place by dpdau. Put the database back with the tools of the database, or copy a "
            "backup of the ledger into an empty one with `dpdau ledger copy --to`."
        )
    return path


def make_private_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, each 0700."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
