"""Which backups stay: the newest ones, and those that are not too old."""

import datetime as dt
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dpdau.app.backups import LIST_FILE, PARTIAL, sync_names
from dpdau.app.sealed import SUFFIX
from dpdau.errors import StoreUnavailableError

EVERYTHING: Final = "all"
LEDGER_ALONE: Final = "ledger"
_AT: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(
    rf"({EVERYTHING}|{LEDGER_ALONE})-([0-9]{{8}}T[0-9]{{6}}Z)(\.sqlite|\{SUFFIX})?", re.ASCII
)


def name_of(kind: str, at: dt.datetime, *, encrypted: bool) -> str:
    """The name by which a backup is found again.

    Example:
        >>> name_of("ledger", dt.datetime(2026, 3, 1, 4, 5, 6), encrypted=False)
        'ledger-20260301T040506Z.sqlite'
    """
    plain = "" if kind == EVERYTHING else ".sqlite"
    return f"{kind}-{at:{_AT}}{SUFFIX if encrypted else plain}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which backups stay.

    Attributes:
        keep: As many of the newest; None: any number.
        keep_days: Those of as many days; None: however old.
    """

    keep: int | None
    keep_days: int | None

    def prune(self, newest: Path, *, now: dt.datetime) -> list[Path]:
        """Deletes the other backups of one kind that lie beside one that was verified.

        Args:
            newest: The backup that stays whatever the rule says.
            now: What time it is.

        Returns:
            What is gone, oldest first.

        Guarantee: only what has the name and the form of a backup of the same kind is deleted. No
        link is deleted or followed. What is being deleted has no such name any more, so half of a
        backup is never taken for one.

        Raises:
            StoreUnavailableError: One cannot be deleted.
        """
        own = _Found.of(newest)
        assert own is not None, "a backup that was named by itself"
        beside = (_Found.of(path) for path in newest.parent.iterdir() if path != newest)
        others = sorted(
            (one for one in beside if one is not None and one.kind == own.kind),
            key=lambda one: one.at,
        )
        many = 0 if self.keep is None else max(0, len(others) - (self.keep - 1))
        gone = [
            one.path
            for place, one in enumerate(others)
            if place < many
            or (self.keep_days is not None and one.at < now - dt.timedelta(days=self.keep_days))
        ]
        try:
            for path in gone:
                _delete(path)
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected to delete an old backup in {newest.parent}, found: {error.strerror}."
            ) from None
        return gone


@dataclass(frozen=True, slots=True)
class _Found:
    """A backup, by its name and its form."""

    path: Path
    kind: str
    at: dt.datetime

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """What a path is; None where it is no backup, or a link."""
        match = _NAME.fullmatch(path.name)
        if match is None or path.is_symlink():
            return None
        is_folder = match[1] == EVERYTHING and match[3] is None
        has_form = (path / LIST_FILE).is_file() if is_folder else path.is_file()
        if not has_form:
            return None
        try:
            at = dt.datetime.strptime(match[2], _AT).replace(tzinfo=dt.UTC)
        except ValueError:
            return None
        return cls(path, match[1], at)


def _delete(path: Path) -> None:
    """Takes the name away first, then the bytes."""
    dying = path.with_name(path.name + PARTIAL)
    path.rename(dying)
    sync_names(path.parent)
    if dying.is_dir():
        shutil.rmtree(dying)
    else:
        dying.unlink()
