"""The bytes of the keyring file: read, made once, and replaced, each complete or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dpdau.errors import NotFoundError, StoreUnavailableError

KEYRING_FILE: Final = "keyring.json"
_DRAFT: Final = f".{KEYRING_FILE}."
_READS_MAX: Final = 5


def read(root: Path) -> bytes:
    """The bytes of the keyring file, whole; readable by its owner alone from here on."""
    path = root / KEYRING_FILE
    try:
        for _ in range(_READS_MAX):
            with os.fdopen(os.open(path, os.O_RDONLY), "rb") as it:
                content = it.read()
                found = path.stat()
                # Bytes are overwritten once another file has the name: under it, they were whole.
                if os.path.samestat(found, os.fstat(it.fileno())):
                    if found.st_mode & 0o077:
                        path.chmod(0o600)
                    return content
    except FileNotFoundError:
        raise NotFoundError(f"Expected a keyring at {path}, found none.") from None
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected to read the keyring at {path}, found: {error.strerror}."
        ) from None
    raise StoreUnavailableError(f"Expected a keyring at {path}, found that it keeps changing.")


def write_first(root: Path, content: bytes) -> None:
    """Puts the first keyring in place, durably, unless another process was faster."""
    path = root / KEYRING_FILE
    with _writing(path):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        draft = _draft(root, content)
        try:
            # A link, unlike a rename, fails where the name is taken: the first one wins.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        # The one that came second also waits until the name is durable before it uses the keys.
        _sync_folders(root)


def replace(root: Path, content: bytes) -> None:
    """Puts a keyring in the place of another, durably, and overwrites what lay there."""
    path = root / KEYRING_FILE
    with _writing(path):
        for left in root.glob(f"{_DRAFT}*"):
            _overwrite(os.open(left, os.O_RDWR))
            left.unlink()
        draft = _draft(root, content)
        old = os.open(path, os.O_RDWR)
        try:
            os.rename(draft, path)
            _sync_folders(root)
        except BaseException:
            os.close(old)
            raise
        _overwrite(old)


def _draft(root: Path, content: bytes) -> Path:
    """A new file with durable content, under a name that nobody reads."""
    draft = root / f"{_DRAFT}{os.getpid()}.{secrets.token_hex(8)}"
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as it:
        it.write(content)
        it.flush()
        os.fsync(it.fileno())
    return draft


def _overwrite(descriptor: int) -> None:
    """Zeros in the place of a file's bytes, as far as the file system writes in place."""
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(root: Path) -> None:
    """Makes the names in a folder durable, and that of the folder."""
    for folder in (root, root.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Calls what the system says the product's own error."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected to write a keyring at {path}, found: {error.strerror}."
        ) from None
