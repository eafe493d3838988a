"""The documents as a site: complete, built strictly, alone on its host, open to programs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = ROOT / "mkdocs.yml"
pytestmark = pytest.mark.xdist_group("site")  # One worker builds it once.
PARTS = ["Tutorial", "How-to", "Reference", "Explanation"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make site` builds it."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    done = subprocess.run(
        [*command, str(built)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return built


def navigation() -> dict[str, list[str]]:
    """Part → its pages, in order; the home page alone has no part."""
    parts = yaml.safe_load(CONFIGURATION.read_text("utf-8"))["nav"]
    return {title: list(pages_of(inside)) for part in parts for title, inside in part.items()}


def pages_of(inside: Any) -> Iterator[str]:
    """The paths below one entry of the navigation."""
    if isinstance(inside, str):
        yield inside
    elif isinstance(inside, dict):
        for deeper in inside.values():
            yield from pages_of(deeper)
    else:
        for deeper in inside:
            yield from pages_of(deeper)


class Addresses(HTMLParser):
    """What a page loads by itself, what it links to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sorts the addresses of one tag."""
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a":
            self.links.append(found.get("href", ""))
        else:
            self.loads += [found[name] for name in ("src", "href", "srcset") if name in found]


def addresses(page: Path) -> Addresses:
    """The addresses of a page."""
    found = Addresses()
    found.feed(page.read_text("utf-8"))
    return found


def test_every_document_is_in_the_navigation_once() -> None:
    """Each page and notebook has one place, and there is no place without one."""
    placed = list(chain(*navigation().values()))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    there |= {f"notebooks/{path.stem}.md" for path in (DOCS / "notebooks").glob("*.py")}

    assert there == set(placed)
    assert len(placed) == len(set(placed))
    assert ["Home", *PARTS] == list(navigation())


@pytest.mark.slow
def test_the_site_asks_no_other_host(site: Path) -> None:
    """No page loads a script, style, font or picture from elsewhere, and no style sheet does."""
    for page in site.rglob("*.html"):
        assert [] == [url for url in addresses(page).loads if urlsplit(url).netloc], page
        assert 'class="mermaid"' not in page.read_text("utf-8"), page
    for sheet in site.rglob("*.css"):
        assert [] == re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)", sheet.read_text("utf-8"))


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    """Each link within the site names a file of it, and its anchor where it has one."""
    pages = {page: addresses(page) for page in site.rglob("*.html") if page.name != "404.html"}
    wrong = []
    for page, found in pages.items():
        for link in [*found.links, *found.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists() or (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                wrong.append(f"{page.relative_to(site)}: {link}")

    assert [] == wrong


@pytest.mark.slow
def test_programs_find_every_page(site: Path) -> None:
    """`llms.txt` names each page with a sentence, under its part, and each is there whole."""
    listed = (site / "llms.txt").read_text("utf-8")
    whole = (site / "llms-full.txt").read_text("utf-8")
    lines = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): (\S.{10,})$", listed, re.M)

    assert list(chain(*navigation().values())) == [path for path, _ in lines]
    assert ["dpdau", *PARTS] == re.findall(r"^## (.+)$", listed, re.M)
    for path, _ in lines:
        text = (site / path).read_text("utf-8")
        assert f"<!-- {path} -->\n\n{text.strip()}\n" in whole


@pytest.mark.slow
def test_notebooks_are_shown_with_what_they_put_out(site: Path) -> None:
    """Each notebook has its picture and a table that its cells made; none shows an error."""
    for source in (DOCS / "notebooks").glob("*.py"):
        text = (site / "notebooks" / f"{source.stem}.md").read_text("utf-8")
        pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+\.svg)\)", text)

        assert pictures, source
        for words, name in pictures:
            assert words
            assert (site / "notebooks" / name).read_text("utf-8").rstrip().endswith("</svg>")
        assert "\n|---|" in text
        assert "Traceback" not in text
