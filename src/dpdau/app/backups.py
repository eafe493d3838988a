"""Backups of everything that must not be lost, in one folder; and the way back.

```text
BACKUP/
├── backup.json      what is here, with checksums; written last
├── ledger.sqlite    copied first, so that nothing it says was published is missing below
├── activity/        one committed state of the store
├── card.key.pem     what signs privacy cards, where there is one
└── keyring/         copied last, so that it has every key that the activity needs
```

The secret is in none of it. Encrypted, all of that is one file (`sealed`).
"""

import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dpdau import __version__
from dpdau.activity import residue
from dpdau.activity.backup import Moved, copy_store
from dpdau.app.sealed import is_sealed, passphrase_from, seal, unseal
from dpdau.app.wiring import secret_of
from dpdau.datadir import DataDir
from dpdau.domain import Clock, actor
from dpdau.errors import InvalidSettingError, StoreCorruptError, StoreUnavailableError
from dpdau.ledger.audit import AuditReport
from dpdau.ledger.backup import audit_copy
from dpdau.ledger.chain import Head
from dpdau.ledger.ledger import Ledger
from dpdau.pseudonym import Keyring, key_file
from dpdau.pseudonym.key_file import KEYRING_FILE
from dpdau.settings import Settings

FORMAT: Final = 1
LIST_FILE: Final = "backup.json"
LEDGER: Final = "ledger.sqlite"
ACTIVITY: Final = "activity"
KEYRING: Final = f"keyring/{KEYRING_FILE}"
CARD_KEY: Final = "card.key.pem"
PARTIAL: Final = ".partial"
"""The end of a name that is no backup: one that is being made, read or deleted."""
_PROBLEMS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        path: The folder.
        made_at: Before anything was copied; what came later may be missing.
        version: Of the product that made it.
        files: How many files, without the list of them.
        bytes: Their bytes.
        entries: Entries of the ledger in it.
        head_hash: The hash that stands for all of them.
    """

    path: Path
    made_at: dt.datetime
    version: str
    files: int
    bytes: int
    entries: int
    head_hash: str

    def to_json(self) -> dict[str, Any]:
        """All fields; path and time as text."""
        return {
            "path": str(self.path),
            "made_at": self.made_at.isoformat(),
            "version": self.version,
            "files": self.files,
            "bytes": self.bytes,
            "entries": self.entries,
            "head_hash": self.head_hash,
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """A backup that was verified by itself.

    Attributes:
        report: Its list.
        ledger: The audit of its ledger.
        keyring: Its keys.
        recorded: The erasures that its ledger has on record, before they are done.
        erased: Those that its activity has a receipt of: their users are not in it.
    """

    report: BackupReport
    ledger: AuditReport
    keyring: Keyring
    recorded: tuple[str, ...]
    erased: frozenset[str]


def back_up(
    folder: DataDir,
    ledger: Ledger,
    target: Path,
    *,
    clock: Clock,
    passphrase: bytes | None = None,
    moved: Moved = lambda _done, _all: None,
) -> BackupReport:
    """Copies ledger, activity and keyring into a new folder, or a file, while they are in use.

    Args:
        folder: The data directory.
        ledger: Its ledger, where the backup is recorded before it is made.
        target: The folder, or the encrypted file.
        clock: What time it is.
        passphrase: What to encrypt it with; without, it is a folder. What is encrypted lies in the
            data directory first, so that no other disk sees it in the clear.
        moved: Hears how far it is.

    Guarantee: it appears whole or not at all. Users who were erased before it was begun and keys
    that were destroyed before are not in it.

    Raises:
        InvalidSettingError: The target exists.
        UnavailableError: Something cannot be read or written.
    """
    _refuse_existing(target)
    made_at = clock()
    ledger.audit_event(actor(), "backup_made", {"encrypted": passphrase is not None})
    with _drafted(target if passphrase is None else folder.root / f"backup-{target.name}") as draft:
        head = ledger.backup(draft / LEDGER)
        copy_store(folder.activity, draft / ACTIVITY, moved=moved)
        (draft / KEYRING).parent.mkdir(mode=0o700)
        write(draft / KEYRING, key_file.read(folder.keyring))
        if folder.card_key.exists():
            write(draft / CARD_KEY, folder.card_key.read_bytes())
        files = _digests(draft)
        body = {
            "format": FORMAT,
            "version": __version__,
            "made_at": made_at.isoformat(),
            "ledger": {"entries": head.seq, "head_hash": head.hash},
            "files": files,
        }
        write(draft / LIST_FILE, json.dumps(body, indent=2).encode())
        if passphrase is None:
            sync(draft)
            draft.rename(target)
            sync_names(target.parent)
        else:
            _seal(draft, target, passphrase, moved=moved)
    return _report(target, body)


def back_up_ledger(
    folder: DataDir, ledger: Ledger, target: Path, *, passphrase: bytes | None = None
) -> Head:
    """Copies the ledger alone into a new file while it is in use.

    Returns:
        The entry that the copy ends with.

    Raises: as `back_up`.
    """
    _refuse_existing(target)
    if passphrase is None:
        return ledger.backup(target)
    with _drafted(folder.root / f"backup-{target.name}") as draft:
        head = ledger.backup(draft / LEDGER)
        _seal(draft, target, passphrase)
    return head


@contextmanager
def opened(folder: DataDir, source: Path, passphrase: bytes | None) -> Iterator[Path]:
    """A backup as the file or folder that it was made of, for the length of a `with` block.

    One that is encrypted is written into the data directory, privately, and is gone afterwards.

    Raises:
        InvalidSettingError: It is encrypted, and under another passphrase or none is given.
        StoreCorruptError: It was changed or cut short.
    """
    if not is_sealed(source):
        yield source
        return
    if passphrase is None:
        raise InvalidSettingError(
            f"Expected the passphrase of {source}, which is encrypted, found none: set "
            "BACKUP_PASSPHRASE, or name a file with --passphrase-file."
        )
    with _drafted(folder.root / f"backup-{source.name}-{os.getpid()}") as draft:
        unseal(source, draft, passphrase)
        yield draft if (draft / LIST_FILE).exists() else draft / LEDGER


def passphrase_of(settings: Settings, file: Path | None) -> bytes | None:
    """The passphrase of backups: that of a file, else `BACKUP_PASSPHRASE`, else None.

    Raises:
        InvalidSettingError: The file holds none.
    """
    if file is not None:
        return passphrase_from(file)
    kept = settings.BACKUP_PASSPHRASE
    return None if kept is None else kept.get_secret_value().encode()


def remove_leftovers(folder: DataDir) -> list[str]:
    """Deletes what backups and restores that were cut short left; the caller owns the directory.

    Returns:
        The names of what is gone.
    """
    gone = []
    if folder.stage.exists() and not folder.restoring.exists():
        shutil.rmtree(folder.stage)
        gone.append(folder.stage.name)
    drafts = [*folder.root.glob(f"backup-*{PARTIAL}"), *folder.backups.glob(f"*{PARTIAL}")]
    for draft in sorted(drafts):
        if not draft.is_symlink() and _is_abandoned(draft):
            if draft.is_dir():
                shutil.rmtree(draft)
            else:
                draft.unlink()
            gone.append(draft.relative_to(folder.root).as_posix())
    return gone


def check(settings: Settings, folder: DataDir, source: Path) -> Checked:
    """A backup by itself: every checksum, the secret, the store, the ledger's chain and books."""
    try:
        body = json.loads((source / LIST_FILE).read_bytes())
        report = _report(source, body)
        said, form = dict(body["files"]), int(body["format"])
    except FileNotFoundError:
        raise InvalidSettingError(
            f"Expected a backup in {source}, found no {LIST_FILE}: it is none, or not complete."
        ) from None
    except (KeyError, TypeError, ValueError):
        raise StoreCorruptError(f"Expected the list of a backup in {source}, found none.") from None
    if form > FORMAT:
        raise InvalidSettingError(f"Expected a backup of format {FORMAT}, found a newer one.")
    found = _digests(source)
    wrong = sorted(name for name in found.keys() | said.keys() if found.get(name) != said.get(name))
    if wrong:
        raise StoreCorruptError(
            f"Expected the files that {LIST_FILE} lists, found others: "
            f"{', '.join(wrong[:_PROBLEMS_SHOWN])}.",
            files=wrong,
        )
    keyring = Keyring.decode((source / KEYRING).read_bytes(), secret_of(settings))
    findings = residue.inspect(source / ACTIVITY, store_key=keyring.store_key())
    if findings.problems:
        shown = "; ".join(findings.problems[:_PROBLEMS_SHOWN])
        raise StoreCorruptError(f"Expected a sound activity store in the backup, found: {shown}.")
    scratch = folder.root / f"ledger.verify.{os.getpid()}"
    ledger, recorded = audit_copy(source / LEDGER, scratch)
    return Checked(report, ledger, keyring, recorded, findings.receipts)


def check_ledger(folder: DataDir, source: Path) -> AuditReport:
    """A backup of the ledger by itself, whatever came after it."""
    return audit_copy(source, folder.root / f"ledger.verify.{os.getpid()}")[0]


def _refuse_existing(target: Path) -> None:
    """A backup never replaces anything."""
    if target.exists() or target.is_symlink():
        raise InvalidSettingError(f"Expected a new place for the backup, found {target}.")


def _seal(
    draft: Path, target: Path, passphrase: bytes, *, moved: Moved = lambda _done, _all: None
) -> None:
    """Makes the encrypted file of a draft, which appears whole or not at all."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected a file that can be written for {target}, found: {error.strerror}."
        ) from None
    try:
        with os.fdopen(handle, "wb") as sink:
            sink.truncate()
            seal(draft, sink, passphrase, moved=moved)
            partial.rename(target)
        sync_names(target.parent)
    except OSError as error:
        raise StoreUnavailableError(f"Expected to write {target}, found: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _report(path: Path, body: dict[str, Any]) -> BackupReport:
    """What the list of a backup says."""
    return BackupReport(
        path=path,
        made_at=dt.datetime.fromisoformat(body["made_at"]),
        version=str(body["version"]),
        files=len(body["files"]),
        bytes=sum(int(size) for size, _digest in body["files"].values()),
        entries=int(body["ledger"]["entries"]),
        head_hash=str(body["ledger"]["head_hash"]),
    )


@contextmanager
def _drafted(target: Path) -> Iterator[Path]:
    """A new folder beside a target, held by a lock, and gone if it did not become the target."""
    draft = target.with_name(target.name + PARTIAL)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if draft.exists() and _is_abandoned(draft):
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        handle = os.open(draft, os.O_RDONLY)
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected a folder that can be written for {target}, found: {error}."
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield draft
    except OSError as error:
        raise StoreUnavailableError(f"Expected to write {target}, found: {error}.") from error
    finally:
        os.close(handle)
        shutil.rmtree(draft, ignore_errors=True)


def _is_abandoned(draft: Path) -> bool:
    """Whether nobody is filling a folder any more."""
    handle = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _files(root: Path) -> Sequence[Path]:
    """The files of a folder but for the list of them."""
    return [one for one in sorted(root.rglob("*")) if one.is_file() and one != root / LIST_FILE]


def _digests(root: Path) -> dict[str, list[Any]]:
    """Name → size and SHA-256 of each file."""
    found = {}
    for path in _files(root):
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        found[path.relative_to(root).as_posix()] = [path.stat().st_size, digest]
    return found


def write(path: Path, content: bytes) -> None:
    """Writes a private file, durably."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())


def sync(root: Path) -> None:
    """Makes a folder and everything in it durable."""
    for path in (*root.rglob("*"), root):
        sync_names(path)


def sync_names(path: Path) -> None:
    """Makes one file, or the names in one folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
