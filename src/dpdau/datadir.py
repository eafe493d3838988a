"""The data directory: where each thing lives, its permissions, and who is using it."""

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dpdau.errors import DataDirInUseError, StoreUnavailableError

_LOCK_NAME: Final = "service.lock"


@dataclass(frozen=True, slots=True)
class DataDir:
    """The layout under `DATA_DIR`; folders are 0700, files 0600."""

    root: Path

    def create(self) -> Self:
        """Makes the folders that are missing.

        Raises:
            StoreUnavailableError: They cannot be made here.
        """
        try:
            for folder in (self.root, self.activity, self.ledgers, self.keyring, self.reports):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(
                f"Expected a folder that can be written, found {self.root}: {error.strerror}."
            ) from None
        return self

    @property
    def activity(self) -> Path:
        """The private activity store."""
        return self.root / "activity"

    @property
    def ledgers(self) -> Path:
        """The ledger, where it is SQLite."""
        return self.root / "ledgers"

    @property
    def mark(self) -> Path:
        """The ledger's high-water mark, outside the ledger's own folder."""
        return self.root / "ledger.mark.json"

    @property
    def keyring(self) -> Path:
        """The salts of the pseudonym keys."""
        return self.root / "keyring"

    @property
    def card_key(self) -> Path:
        """The key that signs privacy cards."""
        return self.root / "card.key.pem"

    @property
    def backups(self) -> Path:
        """Where backups go unless told otherwise."""
        return self.root / "backups"

    @property
    def restoring(self) -> Path:
        """Says that a restore is under way: until it is done, nothing here is to be opened."""
        return self.root / "restore.json"

    @property
    def stage(self) -> Path:
        """Where a restore puts what it brings back, and what that replaces."""
        return self.root / "restore"

    @property
    def strategies(self) -> Path:
        """Noise strategies that were solved here; public."""
        return self.root / "strategies"

    @property
    def streams(self) -> Path:
        """How far Spark has read topics, in its own words."""
        return self.root / "streams"

    @property
    def experiments(self) -> Path:
        """Results of experiments."""
        return self.root / "experiments"

    @property
    def plots(self) -> Path:
        """Figures of experiments."""
        return self.root / "plots"

    @property
    def alerts(self) -> Path:
        """How far the audit log was looked through for what is worth an alert."""
        return self.root / "alerts.json"

    @property
    def reports(self) -> Path:
        """The budget snapshot."""
        return self.root / "reports"

    def use(self) -> "DataDirUse":
        """Marks the directory as used by a command, until closed.

        Raises:
            DataDirInUseError: A service owns it; the error names the service's URL.
        """
        return DataDirUse(self._lock(fcntl.LOCK_SH))

    def own(self, url: str | None = None) -> "DataDirUse":
        """Marks the directory as owned by the service at `url`, or by a command, until closed.

        Raises:
            DataDirInUseError: A service or a command is using it.
        """
        handle = self._lock(fcntl.LOCK_EX)
        try:
            os.ftruncate(handle, 0)
            if url is not None:
                os.pwrite(handle, json.dumps({"url": url, "pid": os.getpid()}).encode(), 0)
        except OSError as error:
            os.close(handle)
            raise self._not_writable(error) from None
        return DataDirUse(handle)

    def _lock(self, kind: int) -> int:
        try:
            handle = os.open(self.root / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._not_writable(error) from None
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError:
            url, holders = _owner(handle), _holders(handle)
            os.close(handle)
            who = f"the service at {url}" if url else "another command"
            if holders:
                who += f" (process {', '.join(map(str, holders))})"
            hint = f"; a command can speak to it with --url {url}" if url else "; wait for its end"
            raise DataDirInUseError(
                f"{self.root} is in use by {who}{hint}.", url=url, processes=holders
            ) from None
        return handle

    def _not_writable(self, error: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"Expected {self.root} to be writable, found: {error.strerror}."
        )


class DataDirUse:
    """A hold on the data directory; given back by `close` or the end of the process."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def close(self) -> None:
        """Gives the directory back; may be called twice."""
        if self._handle is not None:
            # What is written there counts for nothing once the hold is gone.
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def _holders(handle: int) -> list[int]:
    """The processes that hold the lock of a file, as far as the system tells: Linux does."""
    found = os.fstat(handle)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []
    # Who waits for one has an arrow in its line; a process of another container has no number.
    held = [int(one[4]) for one in locks if one[1] == "FLOCK" and one[5] == place]
    return sorted({one for one in held if one > 0})


def _owner(handle: int) -> str | None:
    """The URL that the owner wrote; None while it is not a service or has not written yet."""
    try:
        url = json.loads(os.pread(handle, 4096, 0))["url"]
    except (ValueError, KeyError):
        return None
    return str(url)
