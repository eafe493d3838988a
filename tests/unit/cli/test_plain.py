"""What is printed where: words for letters that a terminal lacks, colors only where wanted."""

import os
import subprocess
import sys
from pathlib import Path

from dpdau.cli import output, plain

DPDAU = Path(sys.executable).with_name("dpdau")
ESCAPE = "\x1b"


def shown(cwd: Path, *words: str, **variables: str) -> str:
    """What a command prints into a pipe."""
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}
    done = subprocess.run(
        [DPDAU, *words], cwd=cwd, env=environment, check=True, capture_output=True, timeout=60
    )
    return done.stdout.decode()


def on_terminal(cwd: Path, *words: str, **variables: str) -> str:
    """What a command prints on a terminal."""
    import pty

    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm", **variables}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [DPDAU, *words], cwd=cwd, env=environment, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux says so when the last writer is gone.
                break
            if not part:
                break
            parts.append(part)
        assert 0 == process.wait(60)
    os.close(ours)
    return b"".join(parts).decode()


def test_colors_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    """On a terminal they are there; in a pipe, with NO_COLOR, or on a dumb one they are not."""
    check = ("doctor", "--check", "disk")

    assert ESCAPE in on_terminal(tmp_path, *check)
    assert ESCAPE not in on_terminal(tmp_path, *check, NO_COLOR="1")
    assert ESCAPE not in on_terminal(tmp_path, *check, TERM="dumb")
    assert ESCAPE not in shown(tmp_path, *check)


def test_a_terminal_without_the_letters_gets_words(tmp_path: Path) -> None:
    """A table in ASCII has eps for ε, and no crash."""
    text = shown(tmp_path, "config", "show", PYTHONIOENCODING="ascii")

    assert text.isascii()
    assert "eps of one DAU" in " ".join(text.split())
    assert "?" not in text


def test_every_letter_of_the_tables_has_a_word() -> None:
    """No bar and no tick is shown as a question mark."""
    plain.use_plain_words()
    for letters in (output._TICKS, "▏▎▍▌▋▊▉█", "εδρ±…–"):
        assert "?" not in letters.encode("ascii", plain._HANDLER).decode()
    assert b"Renyi ?" == "Rényi 日".encode("ascii", plain._HANDLER)
