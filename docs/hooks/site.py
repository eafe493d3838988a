"""What MkDocs asks while it builds the site: notebooks, links that leave it, pages for machines.

MkDocs finds the functions by their names (`on_files`, `on_page_markdown`, `on_post_build`).
"""

import re
from pathlib import Path
from typing import Any, Final

import llms
import notebooks
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.M | re.S)
_pages: list[llms.Entry] = []


def on_files(files: Files, *, config: Any) -> Files:
    """Adds a page for each notebook, with what its cells put out."""
    _pages.clear()
    sources = sorted((Path(config.docs_dir) / "notebooks").glob("*.py"))
    for name, content in notebooks.rendered(sources).items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Turns links that leave the documents into words; those to a notebook go to its page."""
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        mark, words, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match.group()
        path = (folder / target).resolve()
        if not path.is_relative_to(docs):
            return words
        if path.parent.name == "notebooks" and path.suffix == ".py":
            return f"{mark}[{words}]({target.removesuffix('.py')}.md{anchor or ''})"
        return match.group()

    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(inside, part) for part in parts)


def on_nav(nav: Navigation, *, config: Any, files: Files) -> Navigation:
    """Notes which page stands in which part."""
    for page in nav.pages:
        part = page.ancestors[-1].title if page.ancestors else config.site_name
        _pages.append(llms.Entry(part, page))
    return nav


def on_post_build(*, config: Any) -> None:
    """Writes each page as Markdown beside it, and the two lists of them for machines."""
    site = Path(config.site_dir)
    for entry in _pages:
        path = site / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.markdown, "utf-8")
    title, about = config.site_name, config.site_description
    (site / "llms.txt").write_text(llms.listed(title, about, _pages), "utf-8")
    (site / "llms-full.txt").write_text(llms.whole(_pages), "utf-8")
