"""Named points of a process at which it may die, or at which the disk may refuse.

A point is a step outside the process: a file is opened for writing, written, made durable, renamed
or removed, or a statement reaches a database. They come in the same order in every run of the same
work, so that each of them can be tried.
"""

import errno
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILL = "kill"
FULL = "full"
READ_ONLY = "read-only"
_ERRORS = {FULL: errno.ENOSPC, READ_ONLY: errno.EROFS}
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TELLING = frozenset({"BEGIN", "COMMIT", "DELETE", "INSERT", "UPDATE", "VACUUM", "CREATE"})
_VARYING = re.compile(r"[0-9a-f]{8,}|[0-9]+")


class Points:
    """Counts the points of this process on files under a folder, and lets one of them fail.

    Args:
        folder: Steps elsewhere are no points.
        fault: `KILL` ends the process at the point, `FULL` and `READ_ONLY` let the step fail as
            such a disk would, where a step can: statements and removals are no points then.
        at: The number of the point, from 0; None for none.
    """

    def __init__(self, folder: Path, *, fault: str = KILL, at: int | None = None) -> None:
        self.names: list[str] = []
        self._folder = str(folder)
        self._fault = fault
        self._at = at
        self._counting = False

    def install(self) -> None:
        """Begins to count; for the rest of the process."""
        for name in ("rename", "replace"):
            self._wrap(name, lambda source, target, *_, **__: target)
        for name in ("fsync", "write", "ftruncate", "pwrite"):
            self._wrap(name, lambda handle, *_, **__: _path_of(handle))
        if self._fault == KILL:
            for name in ("unlink", "remove", "rmdir"):
                self._wrap(name, lambda path, *_, **__: path)
            self._trace_statements()
        sys.addaudithook(self._on_audit)
        self._counting = True

    def stop(self) -> None:
        """Counts no further."""
        self._counting = False

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & _CHANGES and not isinstance(arguments[0], int):
            self._reach("open", arguments[0])

    def _wrap(self, name: str, path_of: Callable[..., Any]) -> None:
        real = getattr(os, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self._reach(name, path_of(*arguments, **options))
            return real(*arguments, **options)

        setattr(os, name, wrapped)

    def _trace_statements(self) -> None:
        real = sqlite3.connect

        def connect(*arguments: Any, **options: Any) -> Any:
            database = real(*arguments, **options)
            place = str(arguments[0]).removeprefix("file://").partition("?")[0]

            def trace(statement: str) -> None:
                word = statement.split(None, 1)[0].upper() if statement.strip() else ""
                if word in _TELLING:
                    self._reach(word, place)

            database.set_trace_callback(trace)
            return database

        sqlite3.connect = connect  # type: ignore[assignment]

    def _reach(self, step: str, path: Any) -> None:
        where = os.fsdecode(path)
        if not self._counting or not where.startswith(self._folder):
            return
        number = len(self.names)
        self.names.append(f"{step} {_VARYING.sub('*', where.removeprefix(self._folder))}")
        if number == self._at:
            if self._fault == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(_ERRORS[self._fault], os.strerror(_ERRORS[self._fault]), where)


def _path_of(handle: int) -> str:
    """The file of a descriptor."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""
