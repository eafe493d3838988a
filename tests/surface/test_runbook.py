"""The runbook: one section for each alert, each kind of alert in its table, each command run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import postgres_pair
from dpdau.app import App
from dpdau.app.alerts import KINDS
from dpdau.domain import Metric
from products import DAY, NOW, ZeroNoise, event, product_settings, send

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text("utf-8")
SKIP = "<!-- skip: next -->\n\n"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)


def rules() -> dict[str, str]:
    """The alert rules with their severities."""
    (group,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8"))[
        "groups"
    ]
    return {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}


def anchors() -> set[str]:
    """What a link may lead to: each heading, as Markdown names it."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", TEXT), re.M)
    return {re.sub(r"[^a-z0-9-]", "", one.lower().replace(" ", "-")) for one in headings}


def section(title: str) -> str:
    """The text of a section."""
    return re.split(r"^## ", TEXT, flags=re.M)[1:][
        [one.split("\n", 1)[0] for one in re.split(r"^## ", TEXT, flags=re.M)[1:]].index(title)
    ]


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the tables of a section, by each name in their first column."""
    found = {}
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else ():
            found[name] = cells[1:]
    return found


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    """An alert that fires leads to words about it; a section about no alert would be dead."""
    sections = re.findall(r"^### (\w+)$", section("Alerts"), re.M)

    assert sorted(rules()) == sorted(sections)


def test_the_intake_table_has_every_alert() -> None:
    """Rules and kinds of alerts are listed with their severity and a link to their section."""
    table = rows("Alert intake")
    expected = rules() | {name: kind.severity for name, kind in KINDS.items()}

    assert expected == {name: cells[0] for name, cells in table.items()}
    for name, cells in table.items():
        (link,) = re.findall(r"\(#([^)]+)\)", cells[-1])
        assert link == (KINDS[name].section if name in KINDS else name.lower())


def test_links_lead_somewhere() -> None:
    """Each link within the page, and each that an alert carries, leads to a heading."""
    wanted = set(re.findall(r"\]\(#([^)]+)\)", TEXT)) | {one.section for one in KINDS.values()}

    assert set() == wanted - anchors()


def test_triage_is_five_commands() -> None:
    """Who is woken up has five lines to paste."""
    (block,) = BLOCK.findall(section("Triage in five commands"))

    assert 5 == len(block.splitlines())


def test_what_is_looked_at_while_it_runs_is_asked_of_the_service() -> None:
    """No diagnosis buys a number; what is read in an incident works beside the service."""
    for title in ("Budget exhausted", "Stale deletes and MAU drift"):
        before = TEXT.split(f"## {title}", 1)[0]
        lines = [line for block in BLOCK.findall(section(title)) for line in block.splitlines()]
        asked = [
            line for line in lines if re.match(r"dpdau (budget|series|plan|erase|erasure) ", line)
        ]

        assert before.rfind("./start\n") > before.rfind("./stop\n")
        assert [] != asked == [line for line in asked if "--url " in line]
        assert [] == [
            line for line in lines if re.match(r"dpdau (dau|wau|mau|growth|release)", line)
        ]


def test_every_command_is_run() -> None:
    """Only the failover is left out by the run of all documents; the test below runs it."""
    assert 1 == TEXT.count("skip:")
    assert SKIP + "```sh" in section("Postgres failover")


@pytest.mark.xdist_group("postgres")
def test_the_failover_keeps_what_was_spent(tmp_path: Path) -> None:
    """The commands of the section bring a standby up that has every charge of the dead primary."""
    (block,) = BLOCK.findall(section("Postgres failover"))
    with postgres_pair() as pair:
        settings = product_settings(tmp_path, SERVICE_DATABASE_URL=pair.primary)
        opened = App.open(settings, clock=lambda: NOW, noise=ZeroNoise(), reported=False)
        with opened.closing() as app:
            send(app, [event("ada")])
            released = app.release(Metric.DAU, DAY).release
        pair.kill_primary()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{pair.programs}:{os.environ['PATH']}",
                "STANDBY": pair.standby,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        url = pair.standby.replace("postgresql://", "postgresql+psycopg://")
        again = App.open(
            product_settings(tmp_path, SERVICE_DATABASE_URL=url),
            clock=lambda: NOW,
            noise=ZeroNoise(),
            reported=False,
        )
        with again.closing() as app:
            answer = app.release(Metric.DAU, DAY)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["t", "t"] == done.stdout.split()[:2]
    assert "1 releases" in done.stdout
    assert (True, released) == (answer.replayed, answer.release)
