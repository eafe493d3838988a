"""The command tree is light: a command waits for no more than it uses."""

import subprocess
import sys

HEAVY = (
    "alembic",
    "cryptography",
    "dp_accounting",
    "duckdb",
    "fastapi",
    "httpx",
    "numpy",
    "opendp",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "sqlalchemy",
    "structlog",
)


def loaded(code: str) -> set[str]:
    """Which of the heavy packages a process has after some code."""
    ask = f"{code}\nimport sys\nprint(*[one for one in {HEAVY!r} if one in sys.modules])"
    child = [sys.executable, "-c", ask]
    done = subprocess.run(child, check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_library() -> None:
    """The tree of all commands, and its help, need none of the heavy packages."""
    assert set() == loaded("import dpdau.cli.root")
    assert set() == loaded("from dpdau.cli.root import run\nrun(['--help'])")


def test_reading_a_file_begins_before_the_ledger_is_loaded() -> None:
    """The counting waits for the settings and the engine, not for the ledger or the noise."""
    found = loaded("import dpdau.app.reading")
    assert {"numpy", "pydantic"} == found


def test_a_month_of_a_plain_file_takes_no_more_than_it_uses(tmp_path: object) -> None:
    """Neither the reader of other formats, nor keys, nor other accountants, nor tables."""
    found = loaded(
        "import pathlib, dpdau.cli.root as root\n"
        "import dpdau.app.one_shot\n"
        "import dpdau.cli.one_shot"
    )
    assert {"numpy", "pydantic", "sqlalchemy"} == found
