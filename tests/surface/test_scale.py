"""The scale guide's arithmetic, computed again from the constants that it states."""

import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "scale.md").read_text("utf-8")
PROFILE = (ROOT / "docs" / "profile.md").read_text("utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
SIZES = {"1 million": 1e6, "100 million": 1e8, "10 billion": 1e10}
MEASURED_USERS = 10_000_000
CELL_ERROR_MAX = 0.005
"""Cells show three digits."""
BETTER_MAX, WORSE_MAX = 1.5, 5.0
"""How far a rounded constant may be on the good side of what its page says now, and on the bad."""


def cells(line: str) -> list[str]:
    """The cells of a table's row."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def number(text: str) -> float:
    """A number as the tables write it."""
    return float(text.replace(",", ""))


def constants() -> dict[str, float]:
    """The first table."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.,]+) \|", GUIDE, re.M)
    return {name: number(value) for name, value in rows}


def results() -> list[list[str]]:
    """The rows of the second table."""
    table = GUIDE.split("| name | what | rule |")[1].split("\n\n")[0]
    return [cells(line) for line in table.splitlines()[2:]]


def grown() -> dict[int, list[float]]:
    """Users → the measured columns of the profile's table of sizes."""
    table = PROFILE.split("## With more users")[1].split("## ")[0]
    rows = [cells(line) for line in table.splitlines() if re.match(r"^\| [\d,]+ \|", line)]
    return {int(number(row[0])): [number(cell) for cell in row[1:]] for row in rows}


def measured() -> dict[str, float]:
    """What the generated pages say now of the constants that are measured, in the pages' units."""
    http = re.search(r"^\| batches of 100 \| ([\d,]+) \|", BENCHMARKS, re.M)
    file = re.search(r"^\| L ndjson \| [^|]+ \| ([\d,]+) \|", BENCHMARKS, re.M)
    assert http is not None
    assert file is not None
    _, step, disk, memory = grown()[MEASURED_USERS]
    return {
        "events/s over HTTP": number(http[1]),
        "events/s from a file": number(file[1]),
        "MB on the disk": disk,
        "MB of counting": memory,
        "seconds of a step": step,
    }


def stated() -> dict[str, float]:
    """The same by the guide's constants."""
    known, users = constants(), MEASURED_USERS
    return {
        "events/s over HTTP": known["http_rate"],
        "events/s from a file": known["file_rate"],
        "MB on the disk": (known["disk_fixed"] + known["disk_user"] * users) / 1e6,
        "MB of counting": (known["memory_fixed"] + known["memory_user"] * users) / 1e6,
        "seconds of a step": known["step_user"] * users,
    }


@pytest.mark.parametrize("size", list(SIZES))
def test_every_number_follows_from_the_constants(size: str) -> None:
    """Each cell is what its row's rule gives for the constants and the rows above it."""
    known: dict[str, float] = {**constants(), "users": SIZES[size]}
    column = 3 + list(SIZES).index(size)
    for row in results():
        name, rule = row[0].strip("`"), row[2].strip("`")
        known[name] = eval(rule, {"__builtins__": {}, "ceil": math.ceil}, known)
        assert math.isclose(number(row[column]), known[name], rel_tol=CELL_ERROR_MAX), name

    assert len(results()) == 17


def test_every_constant_is_used() -> None:
    """No constant stands there for nothing, and each says where it is from."""
    rules = " ".join(row[2] for row in results())

    assert [] == [name for name in constants() if not re.search(rf"\b{name}\b", rules)]
    for line in re.findall(r"^\| `\w+` \| [\d.,]+ \|.*$", GUIDE, re.M):
        assert re.search(r"measured|assumed|computed|default", cells(line)[3])


@pytest.mark.parametrize("name", sorted(stated()))
def test_measured_constants_are_near_the_measurements(name: str) -> None:
    """The guide states nothing much better than what the generated pages measured, nor far worse.

    Where it is far worse, the product has become better, and the guide is to be computed anew.
    """
    ratio = stated()[name] / measured()[name]
    times_better = ratio if name.startswith("events/s") else 1 / ratio

    assert 1 / WORSE_MAX < times_better < BETTER_MAX
