"""Runs commands in forks of one process that has everything imported; see `warm_commands`."""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from dpdau.cli.frames import hide_data_frames
from dpdau.cli.root import run

STDIN = 0
EVENT = '{"user_id": "alice", "op": "+", "day": "2026-01-10"}\n'
COMMANDS = (
    "init",
    "ingest --from events.ndjson",
    "dau --day 2026-01-10",
    "exact --from 2026-01-10 --to 2026-01-11",
    "budget all --day 2026-01-10 --json",
    "audit",
    "backup --all",
    "plan price 2100-02",
    "doctor",
)


def main() -> None:
    """Serves until stdin ends."""
    hide_data_frames()
    _import_everything()
    assert threading.active_count() == 1, "a fork has one thread only"
    # Nobody waits for the forks that wait for the commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while STDIN not in select.select([door, STDIN], [], [])[0]:
            way, _ = door.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                door.close()
                sys.exit(_attend(way))
            way.close()


def _import_everything() -> None:
    """What is imported late is imported now, and not in every fork."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        Path("events.ndjson").write_text(EVENT)
        for command in COMMANDS:
            run(command.split())
    gc.collect()
    gc.freeze()


def _attend(way: socket.socket) -> int:
    """Runs one command in a fork of its own, whose exit code goes back."""
    head, files, _, _ = socket.recv_fds(way, 8, 3)
    content = b""
    while len(content) < int.from_bytes(head, "big"):
        content += way.recv(1 << 16)
    call = json.loads(content)
    child = os.fork()
    if child == 0:
        way.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(call["environment"])
        time.tzset()
        os.chdir(call["folder"])
        sys.argv[1:] = call["arguments"]
        return run(call["arguments"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # A shell says so of what a signal ended.
    way.sendall(b"%d" % (code if code >= 0 else 128 - code))
    os._exit(0)


if __name__ == "__main__":
    main()
