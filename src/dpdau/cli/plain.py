"""Output for terminals that cannot show every letter: words in their place, never a crash."""

import codecs
import sys
from typing import Final

_HANDLER: Final = "dpdau-plain"
_WORDS: Final = {
    "ε": "eps",
    "δ": "delta",
    "ρ": "rho",
    "±": "+-",
    "…": "..",
    "–": "-",
    "−": "-",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "·": ".",
    "“": '"',
    "”": '"',
    "’": "'",
    "●": "o",
    "░": ":",
    # Bars, and the steps of a row of ticks.
    **dict(zip("▏▎▍▌▋▊▉█", "..=====#", strict=True)),
    **dict(zip("▁▂▃▄▅▆▇", "1234567", strict=True)),
}


def use_plain_words() -> None:
    """Has standard output and error write what their encoding lacks as words."""
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The stand-in for the letters that cannot be written, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_WORDS.get(letter) or _bare(letter) for letter in text), error.end


def _bare(letter: str) -> str:
    """A letter without its accent, or a question mark."""
    import unicodedata

    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"
