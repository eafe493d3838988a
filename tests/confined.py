"""Runs a command that can write under the named folders and nowhere else, as in a read-only root.

`python confined.py FOLDER... -- COMMAND...`; by Landlock, which needs Linux 5.19 and no rights.
"""

import ctypes
import os
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls; their numbers are the same on every architecture."""
VERSION_ONLY = 1
VERSION_MIN = 2
"""The first that lets a file be renamed from one folder into another."""
PATH_BENEATH = 1
NO_NEW_PRIVILEGES = 38
WRITE_FILE = 1 << 1
REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 14))
TRUNCATE = 1 << 14
TRUNCATE_VERSION = 3
_LIBC = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """What the kernel has of Landlock; 0 is nothing."""
    return max(0, int(_LIBC.syscall(CREATE_RULESET, None, 0, VERSION_ONLY)))


def confine(folders: list[str]) -> None:
    """From here on this process and its children write under `folders` and to /dev/null alone."""
    of_files = WRITE_FILE | (TRUNCATE if version() >= TRUNCATE_VERSION else 0)
    every = of_files | REMOVE_AND_MAKE
    attributes = ctypes.create_string_buffer(struct.pack("=Q", every), 8)
    ruleset = _checked(_LIBC.syscall(CREATE_RULESET, attributes, 8, 0))
    for path, allowed in [*((folder, every) for folder in folders), ("/dev/null", of_files)]:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, place), 12)
        _checked(_LIBC.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
        os.close(place)
    _checked(_LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(_LIBC.syscall(RESTRICT_SELF, ruleset, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    border = sys.argv.index("--")
    confine(sys.argv[1:border])
    os.execvp(sys.argv[border + 1], sys.argv[border + 1 :])
