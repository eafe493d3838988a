"""The documents as a test: generated pages are current, code blocks run, nothing is left out."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from dpdau.cli.root import app as cli
from dpdau.settings import Settings
from reference_pages import PAGES, commands
from warm_commands import warm_commands

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dpdau"
REFERENCE = ROOT / "docs" / "reference"
OLDER_SURFACE = ROOT / "docs" / "reference" / "older-surface.md"
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
LANGUAGES_THAT_RUN = {"python", "sh"}
LANGUAGES_THAT_ONLY_SHOW = {"text", "json", "toml", "mermaid"}

CONTRACT = {
    "routes": """
        POST /event|POST /events|DELETE /users/{user_id}|GET /erasures/{id}|GET /dau/{day}|
        GET /wau|GET /mau|GET /series|GET /budget/{metric}|GET /releases|GET /plans|POST /plans|
        GET /live|GET /metrics|GET /healthz|GET /readyz|GET /version|GET /docs|GET /
    """,
    "commands": """
        init|serve|ingest|consume|dau|wau|mau|series|plan open|plan show|plan price|budget|
        reset-budget|erase|flush-deletes|rotate-salt|keys create|keys list|keys revoke|backup|
        restore|migrate|audit|doctor|generate-synthetic|eval|plots|config show|exact|version|release
    """,
    "settings": """
        DATA_DIR|SERVICE_API_KEY|HASH_SALT_SECRET|HASH_SALT_ROTATION_DAYS|EPSILON_DAU|EPSILON_WAU|
        EPSILON_MAU|DELTA|ADVANCED_DELTA|RDP_ORDERS|DAU_BUDGET_TOTAL|WAU_BUDGET_TOTAL|
        MAU_BUDGET_TOTAL|RELEASE_POLICY|PLAN_EPSILON|PLAN_DELTA|W_BOUND|MAU_WINDOW_DAYS|TIMEZONE|
        GRACE_HOURS|RETENTION_DAYS|DIMENSIONS|SKETCH_IMPL|SKETCH_K|SERVICE_DATABASE_URL|
        KAFKA_BOOTSTRAP_SERVERS|KAFKA_TOPIC|SERVICE_HOST|ADMIN_EMAIL|ALERT_WEBHOOK_URL|
        EXPERIMENT_ID|DEFAULT_SEED
    """,
    "make targets": """
        run|test|setup|fmt|lint|smoke|load-test|bench|eval|plots|backup-ledger|placeholder-check|
        precommit|ci-guard|verify-deploy|help
    """,
}


def words(kind: str) -> list[str]:
    """The names of one kind that the contract lists."""
    return [word.strip() for word in CONTRACT[kind].split("|")]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_current(name: str) -> None:
    """Each reference page equals what the code says now; `make docs` writes them anew."""
    page, path = PAGES[name](), REFERENCE / name
    if os.environ.get("DPDAU_UPDATE_SNAPSHOTS"):
        path.write_text(page, "utf-8")

    assert page == path.read_text("utf-8")


def test_every_setting_has_a_reader() -> None:
    """Each setting is named in the product outside the table: no knob turns nothing."""
    texts = "\n".join(
        path.read_text("utf-8")
        for path in SOURCE.rglob("*.py")
        if path.name != "settings.py" or path.parent != SOURCE
    )
    own = (SOURCE / "settings.py").read_text("utf-8").split("@property", 1)[1]

    assert [] == [
        name for name in Settings.model_fields if not re.search(rf"\b{name}\b", texts + own)
    ]


def test_every_setting_in_the_documents_exists() -> None:
    """A setting named in prose is one of the table, or is in the older surface as not there."""
    known = set(Settings.model_fields) | set(words("settings"))
    looks_like_one = re.compile(
        r"`((?:EPSILON|HASH_SALT|SERVICE|RDP|SKETCH|PLAN|KAFKA)_[A-Z_]+|[A-Z]+_BUDGET_TOTAL)`"
    )
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in DOCUMENTS
        for name in looks_like_one.findall(path.read_text("utf-8"))
        if name not in known or (name not in Settings.model_fields and path != OLDER_SURFACE)
    }

    assert set() == wrong


def test_every_command_is_documented() -> None:
    """Each command says what it does, and each of its options too."""
    for name, command in commands(typer.main.get_command(cli)):
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", "argument"), f"{name} {parameter.name}"


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_the_older_surface_is_covered(kind: str) -> None:
    """The table of the older surface has a row for each name of the contract."""
    text = OLDER_SURFACE.read_text("utf-8")
    prefix = {"commands": "dpdau ", "make targets": "make "}.get(kind, "")

    assert [] == [name for name in words(kind) if f"| `{prefix}{name}` |" not in text]


def test_the_older_surface_is_honest() -> None:
    """A row says `yes` exactly where the command, setting or target is there."""
    rows = dict(
        re.findall(
            r"^\| `([^`]+)` \|[^|]*\| (yes|not yet) \|", OLDER_SURFACE.read_text("utf-8"), re.M
        )
    )
    there = {f"dpdau {name}" for name, _ in commands(typer.main.get_command(cli))}
    there |= set(Settings.model_fields)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    there |= {f"make {name}" for name in re.findall(r"^([a-z-]+):.*##", makefile, re.M)}
    listed = {name for name in rows if not name.startswith(("GET ", "POST ", "DELETE "))}

    assert {name for name in listed if rows[name] == "yes"} == listed & there


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a `dpdau` that starts at once."""
    with warm_commands(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_blocks_run(
    path: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each `python` and `sh` block of a document runs, in order, in one empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    parsers = [
        CodeBlockParser("python", PythonEvaluator()),
        CodeBlockParser("sh", _run_shell),
        SkipParser(),
    ]
    document = Sybil(parsers=parsers, path=str(path.parent)).parse(path)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_are_well_formed(path: Path) -> None:
    """One title; blocks in known languages; links within the project lead somewhere."""
    text = path.read_text("utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    languages = set(re.findall(r"^```(\S*)\n", text, flags=re.M)) - {""}

    assert 1 == len(re.findall(r"^# ", prose, flags=re.M))
    assert set() == languages - LANGUAGES_THAT_RUN - LANGUAGES_THAT_ONLY_SHOW
    assert 0 == len(re.findall(r"^```", text, flags=re.M)) % 2
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (path.parent / link).exists(), link


def _run_shell(example: Example) -> None:
    """Runs a block with bash; a failure shows what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}\n{done.stderr}"
