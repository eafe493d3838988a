"""Style as a test: what may stand where, how big things may grow, and what may make what."""

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dpdau"
FILE_LINES_MAX = 500
BODY_LINES_MAX = 70
ROOT_DOCUMENTS = {
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
}
ROOT_FILES = ROOT_DOCUMENTS | {
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "Makefile",
    "compose.yaml",
    "hatch_build.py",
    "mkdocs.yml",
    "pyproject.toml",
    "requirements.lock",
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "manager", "managers", "services"}
DOORS = {
    "RawEvent": {"ingest/event.py", "ingest/batch.py", "ingest/files.py"},
    "Event": {"ingest/batch.py"},
    "EventBatch": {"ingest/batch.py"},
    "BoundedCount": {"aggregates.py"},
    "Charge": {"plan/growth.py", "plan/single.py", "plan/live.py", "plan/months.py"},
    "Release": {
        "release/growth.py",
        "release/on_demand.py",
        "release/live.py",
        "release/months.py",
    },
}


def tracked() -> list[Path]:
    """The files that git knows or would add, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [Path(line) for line in listed if (ROOT / line).exists()]


def modules() -> list[Path]:
    """The product's source files, without those that protoc makes."""
    return sorted(path for path in SOURCE.rglob("*.py") if "_pb2" not in path.stem)


@cache
def tree_of(path: Path) -> ast.Module:
    """A file as Python reads it."""
    return ast.parse(path.read_text("utf-8"))


def bodies(tree: ast.AST) -> list[tuple[str, int]]:
    """(name, lines after the docstring) of each function."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - statements[0].lineno + 1 if statements else 0
            found.append((node.name, lines))
    return found


def test_the_root_holds_only_listed_files() -> None:
    """Plans, hand-overs and results do not stand at the root."""
    at_root = {path.name for path in tracked() if len(path.parts) == 1}

    assert set() == at_root - ROOT_FILES
    assert set() == ROOT_DOCUMENTS - at_root


def test_files_and_bodies_stay_short() -> None:
    """No source file passes 500 lines and no body 70."""
    long = []
    for path in modules():
        text = path.read_text("utf-8")
        if len(text.splitlines()) > FILE_LINES_MAX:
            long.append(f"{path.name}: {len(text.splitlines())} lines")
        long += [
            f"{path.name}:{name}: {lines} lines"
            for name, lines in bodies(tree_of(path))
            if lines > BODY_LINES_MAX
        ]

    assert [] == long


def test_no_drawer_modules() -> None:
    """There is no module named for being shared."""
    named = [path for path in modules() if FORBIDDEN_NAMES & set(path.with_suffix("").parts)]

    assert [] == named


@pytest.mark.parametrize("noun", sorted(DOORS))
def test_doors_are_opened_in_one_room(noun: str) -> None:
    """Each noun that crosses a door is constructed in the module that owns the door alone."""
    makers = set()
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) != "threading.Event":
                name = node.func.attr if isinstance(node.func, ast.Attribute) else None
                name = node.func.id if isinstance(node.func, ast.Name) else name
                if name == noun:
                    makers.add(path.relative_to(SOURCE).as_posix())

    assert makers
    assert set() == makers - DOORS[noun]


def test_assertions_are_kept_on() -> None:
    """No entry point runs Python with -O, which would drop the assertions."""
    places = [ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / ".github").rglob("*.yml")]
    places += [ROOT / "Dockerfile", ROOT / "compose.yaml"]
    places += [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    text = "\n".join(path.read_text("utf-8") for path in places)

    assert "PYTHONOPTIMIZE" not in text
    assert "python -O" not in text


def test_nothing_generated_or_foreign_is_tracked() -> None:
    """No build product, cache, archive, data file or secret is in the tree."""
    suffixes = {".pyc", ".so", ".whl", ".gz", ".zip", ".zst", ".parquet", ".sqlite", ".log", ".pem"}
    found = [path for path in tracked() if path.suffix in suffixes or path.name == "uv.lock"]

    assert [] == found


def test_no_index_address_is_tracked() -> None:
    """The lock file names versions and hashes only."""
    lock = (ROOT / "requirements.lock").read_text("utf-8")

    assert "://" not in lock
    assert "--hash=sha256:" in lock


def test_every_test_says_what_it_expects() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert [] == silent


def test_every_definition_is_used() -> None:
    """Each public function, class and method of the product is named somewhere else."""
    files = [
        path
        for folder in (SOURCE, ROOT / "tests", ROOT / "docs")
        for path in folder.rglob("*")
        if path.suffix in {".py", ".md"}
    ]
    named = Counter(word for path in files for word in re.findall(r"\w+", path.read_text("utf-8")))
    unused = []
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                routed = bool(node.decorator_list) and isinstance(node, ast.FunctionDef)
                if not routed and named[node.name] < 2:
                    unused.append(f"{path.relative_to(SOURCE)}:{node.name}")

    assert [] == unused


def test_changes_have_fragments() -> None:
    """Each changelog fragment is named NUMBER.KIND.md with a known kind."""
    kinds = {"added", "changed", "fixed", "removed", "privacy"}
    names = [path.name for path in (ROOT / "changelog.d").glob("*.md")]

    assert names
    for name in names:
        number, kind, _ = name.split(".")
        assert number.isdigit()
        assert kind in kinds
