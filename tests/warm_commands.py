"""A folder with a `dpdau` command that starts at once, for scripts that run dozens of them.

A new Python takes more than a second to import the product, so commands are forks of one process
that has it imported. What stays open, or has processes of its own, is the installed command.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpdau.settings import Settings

HERE = Path(__file__).parent
SCRIPT = """#!/bin/sh
case "$1" in serve|consume|eval|plots) exec {installed} "$@" ;; esac
exec {python} -IS {client} {door} "$@"
"""


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """The folder, while its command can be run."""
    door = folder / "door"
    (folder / "bin").mkdir()
    command = folder / "bin" / "dpdau"
    command.write_text(
        SCRIPT.format(
            installed=Path(sys.executable).with_name("dpdau"),
            python=sys.executable,
            client=HERE / "warm_command.py",
            door=door,
        )
    )
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in Settings.model_fields}
    process = subprocess.Popen(
        [sys.executable, HERE / "warm_process.py", door],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**kept, "RELEASE_POLICY": "on_demand"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "ready\n" == process.stdout.readline(), "see what it said on standard error"
        yield command.parent
        process.stdin.close()
