"""The site for machines: `llms.txt` lists the pages, `llms-full.txt` holds all of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

_BLOCKS: Final = re.compile(r"\n\s*\n")
_NO_PROSE: Final = ("#", "|", "```", "<!--", "!", "-", "Date:", "Made by", "<")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True)
class Entry:
    """One page of the navigation, and the part that it stands in; rendered by the time of use."""

    part: str
    page: Any

    @property
    def path(self) -> str:
        """The page's own file, relative to the site."""
        path: str = self.page.file.src_uri
        return path

    @property
    def markdown(self) -> str:
        """The text of the page."""
        text: str = self.page.markdown
        return text


def listed(title: str, about: str, entries: Iterable[Entry]) -> str:
    """A heading for each part, and a line for each page with its first sentence."""
    lines = [f"# {title}", "", f"> {about.strip()}"]
    for part, pages in groupby(entries, key=lambda entry: entry.part):
        lines += ["", f"## {part}", ""]
        for entry in pages:
            said = first_sentence(entry.markdown)
            lines.append(f"- [{entry.page.title}]({entry.path}): {said}")
    return "\n".join(lines) + "\n"


def whole(entries: Iterable[Entry]) -> str:
    """Every page after the other, each under its path."""
    return "\n".join(f"<!-- {entry.path} -->\n\n{entry.markdown.strip()}\n" for entry in entries)


def first_sentence(markdown: str) -> str:
    """The first sentence of the first paragraph of prose, without its links.

    Raises:
        ValueError: There is none.
    """
    for block in _BLOCKS.split(markdown):
        text = block.strip()
        if text and not text.startswith(_NO_PROSE):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))
            return _SENTENCE.split(plain, maxsplit=1)[0].rstrip(":")
    raise ValueError("Expected a page with a paragraph, found none.")
