"""The pages of a privacy card: one A4 page as HTML or PDF, each made from the signed card alone.

A card of `CARD_FORMAT` 1 gives the same bytes for as long as the format lives: verification makes
the page again and compares. A change to a word or to the look is a new format.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape, unescape
from itertools import zip_longest
from typing import Any, Final

from dpdau.app.signed_card import CARD_FORMAT, Card
from dpdau.errors import CardMismatchError, NotFoundError, UnsupportedMediaError

CARD_SIZE_MAX: Final = 4 << 20
_HTML_CARD: Final = re.compile(
    rb'<script type="application/json" id="dpdau-card">(.*?)</script>', re.S
)
_PDF_CARD: Final = re.compile(rb'stream\r?\n(\{"public_key":.*?\})\r?\nendstream', re.S)
_UNSEEN: Final = re.compile(r"<(script|style)\b.*?</\1>", re.S)
_TAGS: Final = re.compile(r"<[^>]*>")
_ATTACHMENT: Final = "card.json"
_METRICS: Final = {
    "dau": "distinct users active on that day",
    "wau": "distinct users active on any day of the window",
    "mau": "distinct users active on any day of the window",
    "live": "distinct users active today so far",
    "new": "active in the window, and never before",
    "retained": "active in the window and in the one before it",
    "resurrected": "active in the window, not in the one before it, but earlier",
    "churned": "active in the window before, and not in this one",
}
_MECHANISMS: Final = {
    "discrete_gaussian": "discrete Gaussian noise on each number",
    "discrete_laplace": "discrete Laplace noise on each number",
    "lattice_gaussian": "lattice matrix mechanism: discrete Gaussian noise on integers, "
    "correlated over the month",
}
_PROMISE: Final = (
    "Everything that was published about days of this month would look almost the same if any one "
    "user had never sent an event. No published set of releases becomes more than e^ε times as "
    "likely, or as unlikely, by the presence of one user, up to a probability of δ.",
    "This holds against someone who sees every release, who chooses each question after seeing "
    "all earlier answers, and who may send events of their own.",
)
_NOT_COVERED: Final = (
    "Operators: whoever can read the data directory, the secret or the memory of the process.",
    "Senders, who know the users, and are told how many of their own events were taken.",
    "Timing: when events arrive, when a release is made, and how many requests came.",
    "Several accounts of one person: the unit is a user id; k of them are k users.",
    "Backups and copies of the data directory that were made before an erasure.",
    "Exact counts that an operator printed on purpose, and what was published elsewhere.",
    "Releases after this statement: the budgets allow them up to the figures above.",
)
_STYLE: Final = """
@page { size: A4; margin: 14mm }
* { box-sizing: border-box }
html { color-scheme: light; background: #fff; color: #1a1a1a }
body { font: 9.6pt/1.38 "Helvetica Neue", Helvetica, Arial, sans-serif; max-width: 182mm;
  margin: 0 auto; padding: 6mm 0 }
h1 { font-size: 17pt; margin: 0 0 1mm }
h2 { font-size: 10.5pt; margin: 3.6mm 0 1mm; border-bottom: 0.3mm solid #1f5f99 }
p, ul, table, dl { margin: 0 0 1.4mm }
ul { padding-left: 4.5mm }
.lead { color: #444 }
table { border-collapse: collapse; width: 100%; font-size: 8.6pt }
th, td { text-align: left; vertical-align: top; padding: 0.6mm 1.6mm 0.6mm 0;
  border-bottom: 0.2mm solid #ccc }
td:nth-last-child(-n+4) { white-space: nowrap }
dl { display: grid; grid-template-columns: 34mm 1fr; font-size: 8.6pt }
dt { color: #444 }
dd { margin: 0; overflow-wrap: anywhere }
@media print { body { padding: 0 } }
"""
_PLAIN: Final = {"ε": "epsilon", "δ": "delta", "ρ": "rho", "…": "to", "±": "+/-", "–": "-"}


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows under a heading."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading and, as it has them, a table, sentences, points and facts."""

    title: str
    table: _Table | None = None
    sentences: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def html_page(card: Card) -> str:
    """The card as one page of HTML that needs nothing else: no script, no other host."""
    told = card.statement
    body = "\n".join(_html_section(one) for one in _sections(card))
    embedded = _inert(_compact(card))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(told))}</title>\n<style>{_STYLE}</style>\n"
        f'<script type="application/json" id="dpdau-card">{embedded}</script>\n'
        f'</head>\n<body>\n<main>\n<h1>{escape(_title(told))}</h1>\n<p class="lead">'
        f"{escape(_lead(told))}</p>\n{body}\n</main>\n</body>\n</html>\n"
    )


def pdf_page(card: Card) -> bytes:
    """The card as one page of PDF, with the signed card as an attachment.

    Raises:
        NotFoundError: fpdf2 is not installed.
    """
    try:
        from fpdf import FPDF
    except ImportError:
        raise NotFoundError(
            "Expected fpdf2 for a PDF, found none; get it with: pip install 'dp-dau-mau[card]', or "
            "take the .html of the card, which prints on one page."
        ) from None
    told = card.statement
    at = dt.datetime.fromisoformat(told["issued_at"])
    pdf = FPDF(format="A4")
    pdf.set_compression(False)
    pdf.set_creation_date(at)
    pdf.set_title(_plain(_title(told)))
    pdf.set_lang("en")
    pdf.set_margins(14, 12)
    pdf.set_auto_page_break(True, margin=8)
    pdf.add_page()
    pdf.set_font("helvetica", "B", 16)
    pdf.cell(0, 8, _plain(_title(told)), new_x="LMARGIN", new_y="NEXT")
    _pdf_text(pdf, _lead(told))
    for section in _sections(card):
        _pdf_section(pdf, section)
    pdf.embed_file(
        basename=_ATTACHMENT,
        bytes=_compact(card).encode(),
        desc="The signed statement; dpdau card verify reads it",
        mime_type="application/json",
        creation_date=at,
        modification_date=at,
    )
    return bytes(pdf.output())


def json_page(card: Card) -> str:
    """The card for programs."""
    return _inert(json.dumps(card.to_json(), indent=2, sort_keys=True)) + "\n"


def verify(content: bytes) -> Card:
    """The card in a file, whose signature is good and whose page says what was signed.

    Raises:
        UnsupportedMediaError: There is no card in it, or it is of a format to come.
        CardMismatchError: The statement is not what was signed, or the page says something else.
        NotFoundError: A PDF cannot be made again without fpdf2.
    """
    card = Card.from_json(_embedded(content))
    card.check_signature()
    if card.statement.get("format") != CARD_FORMAT:
        raise UnsupportedMediaError(
            f"Expected a card of format {CARD_FORMAT}, found {card.statement.get('format')!r}; "
            "verify it with the version of dpdau that it names."
        )
    try:
        page = html_page(card)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UnsupportedMediaError(
            f"Expected the statement of a card of format {CARD_FORMAT}, found parts missing."
        ) from None
    except ArithmeticError:
        raise CardMismatchError(
            "Expected figures that dpdau can state, found some that no page can show: the card is "
            "signed, and dpdau did not make it."
        ) from None
    if content.startswith(b"%PDF"):
        if pdf_page(card) != content:
            raise CardMismatchError(
                "Expected the page that this statement makes, found another: the PDF was changed "
                "after it was written, or made with another version of fpdf2 than is here. Ask its "
                "publisher for the .html or .json."
            )
    elif _is_json(content):
        # Whole, and not only its members: a browser shows a page that stands in one more of them.
        if _text(content) != json_page(card):
            raise CardMismatchError(
                "Expected the JSON that `dpdau card` writes for this statement, found something "
                "beside it, or another spelling. Ask its publisher for the file."
            )
    else:
        _compare(page, _text(content))
    return card


def _is_json(content: bytes) -> bool:
    return _text(content).lstrip().startswith("{")


def _text(content: bytes) -> str:
    """The text of a file, without what a mail program does to it: line ends, and a mark before."""
    return content.decode("utf-8", "replace").replace("\r\n", "\n").removeprefix("\ufeff")


def _embedded(content: bytes) -> Any:
    """The card in a file, parsed."""
    text: str | bytes | None
    if not content.startswith(b"%PDF") and _is_json(content):
        text = _text(content)
    else:
        pattern = _PDF_CARD if content.startswith(b"%PDF") else _HTML_CARD
        found = pattern.findall(content)
        text = found[0] if len(found) == 1 else None
    try:
        return json.loads(text or b"", parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return None


def _compare(expected: str, found: str) -> None:
    """Refuses a page that is not the one of the statement, and names the first difference.

    Raises:
        CardMismatchError: It is another one.
    """
    if found == expected:
        return
    for good, bad in zip_longest(_visible(expected), _visible(found), fillvalue=""):
        if good != bad:
            raise CardMismatchError(
                f"Expected the page to say {good!r}, found {bad!r}: the page was changed after it "
                "was signed."
            )
    raise CardMismatchError(
        "Expected the page that this statement makes, found the same words in another markup: "
        "something was added to it after it was signed."
    )


def _visible(page: str) -> list[str]:
    """The words of a page, piece by piece, as a reader sees them."""
    pieces = (" ".join(one.split()) for one in _TAGS.split(_UNSEEN.sub("", page)))
    return [unescape(one) for one in pieces if one]


def _compact(card: Card) -> str:
    return json.dumps(card.to_json(), sort_keys=True, separators=(",", ":"))


def _inert(text: str) -> str:
    """JSON that no browser takes for markup."""
    for sign, spelled in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, spelled)
    return text


def _title(told: Mapping[str, Any]) -> str:
    month = dt.date.fromisoformat(f"{told['month']}-01")
    return f"Privacy card, {_MONTHS[month.month - 1]} {month.year}"


def _lead(told: Mapping[str, Any]) -> str:
    published, issued = told["published"], dt.datetime.fromisoformat(told["issued_at"])
    return (
        f"{published['numbers']:,} active-user counts, for {published['days']} of "
        f"{published['days_of_month']} days, published under differential privacy by dpdau "
        f"{', '.join(told['code_versions'])}. Issued {issued:%Y-%m-%d %H:%M} UTC."
    )


def _sections(card: Card) -> tuple[_Section, ...]:
    """What the page says, whatever it is drawn with."""
    told = card.statement
    ledger, published = told["ledger"], told["published"]
    zones = ", ".join(told["timezones"])
    return (
        _Section("The promise", sentences=_PROMISE),
        _Section("What was published", table=_published(published["series"])),
        _Section(
            "What it costs, by budget of the month",
            table=_budgets(told),
            sentences=_notes(told),
        ),
        _Section(
            "What it rests on",
            facts=(
                ("privacy unit", "one user: every event ever sent under one user id, and every "
                 "erasure of that user, on all days and in all segments"),
                ("neighbors", "add or remove one user"),
                ("days", f"calendar days in {zones}; a number belongs to the month of the last "
                 "day of its window"),
                ("ledger", f"{ledger['id']}, {ledger['entries']:,} entries, verified; head "
                 f"{ledger['head_hash']}"),
                ("all numbers", f"SHA-256 {published['releases_sha256']}"),
            ),
        ),
        _Section("What it does not cover", points=_NOT_COVERED),
        _Section(
            "How to verify",
            sentences=(
                "The signed statement is inside this file. dpdau card verify FILE --key KEY checks "
                "the signature, makes this page again from it, and compares. Take KEY from the "
                "publisher, not from this page.",
            ),
            facts=(("signed by", card.public_key), ("signature", card.signature)),
        ),
    )  # fmt: skip


def _published(series: Sequence[Mapping[str, Any]]) -> _Table:
    rows = []
    for one in series:
        name, days = one["metric"], one["window_days"]
        whom = "everyone" if one["segment"] is None else one["segment"]
        window = "1 day" if days == 1 else f"{days} days"
        rows.append(
            (
                name.upper() if name in ("dau", "wau", "mau") else name,
                _METRICS.get(name, name),
                window,
                whom,
                f"{one['numbers']:,}",
                f"± {one['half_width_95_max']:,} users",
            )
        )
    header = ("metric", "counts", "window", "of whom", "numbers", "95 % interval, at most")
    if len(rows) > _SERIES_SHOWN:
        more = f"and {len(rows) - _SERIES_SHOWN} more series"
        rows = [*rows[:_SERIES_SHOWN], (more, "see the signed statement", "", "", "", "")]
    return _Table(header, tuple(rows), (14, 66, 18, 28, 18, 38))


def _budgets(told: Mapping[str, Any]) -> _Table:
    rows = [
        (
            one["budget"],
            "; ".join(_MECHANISMS.get(kind, kind) for kind in one["mechanisms"]),
            *(_pair(one[name]) for name in _FIGURES),
        )
        for one in told["budgets"]
    ]
    if len(rows) > 1:
        together = told["together"]
        rows.append(("together", "all of the above", *(_pair(together[n]) for n in _FIGURES)))
    header = (
        "budget",
        "mechanism",
        "one user added or removed",
        "one user replaced",
        "12 months, added",
        "12 months, ρ added",
    )
    return _Table(header, tuple(rows), (18, 52, 28, 28, 28, 28))


def _notes(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What has to be said beside the figures."""
    notes = [
        "Each pair is (ε, δ), ε rounded up; it bounds everything that the budget lets through, "
        "and is the most that this month can cost unless more is granted later, by the ledger as "
        "it was at the head named below, not only what was charged so far ("
        + "; ".join(
            f"{one['budget']}: ε {_up(one['epsilon_charged'])} for {one['releases']:,} numbers"
            for one in told["budgets"]
        )
        + ")."
    ]
    later = [
        f"{one['budget']} {_pair(one)}" for one in told["not_charged_yet"] if one["epsilon"] > 0
    ]
    if later:
        notes.append(
            "Nothing was charged to the other budgets of this month, which would add: "
            + ", ".join(later)
            + "."
        )
    granted = [one["budget"] for one in told["budgets"] if one["allowances"] > 1]
    if granted:
        notes.append(
            f"More allowances were granted to {', '.join(granted)}; the figures include them."
        )
    return tuple(notes)


def _pair(figure: Mapping[str, Any]) -> str:
    delta = f"{figure['delta']:g}".replace("e-0", "e-")
    return f"({_up(figure['epsilon'])}, {delta})"


def _up(epsilon: float) -> str:
    """ε rounded up to two decimals."""
    return f"{math.ceil(Fraction(str(epsilon)) * 100) / 100:.2f}"


def _html_section(section: _Section) -> str:
    lines = [f"<h2>{escape(section.title)}</h2>"]
    if section.table is not None:
        head = "".join(f'<th scope="col">{escape(one)}</th>' for one in section.table.header)
        lines.append(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>")
        for row in section.table.rows:
            cells = "".join(f"<td>{escape(one)}</td>" for one in row)
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</tbody>\n</table>")
    lines += [f"<p>{escape(one)}</p>" for one in section.sentences]
    if section.points:
        points = "".join(f"<li>{escape(one)}</li>" for one in section.points)
        lines.append(f"<ul>{points}</ul>")
    if section.facts:
        facts = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in section.facts
        )
        lines.append(f"<dl>{facts}</dl>")
    return "\n".join(lines)


def _pdf_section(pdf: Any, section: _Section) -> None:
    pdf.ln(1.6)
    pdf.set_font("helvetica", "B", 10)
    pdf.cell(0, 5, _plain(section.title), border="B", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(0.8)
    if section.table is not None:
        pdf.set_font("helvetica", "", 7.4)
        with pdf.table(
            col_widths=section.table.widths,
            line_height=3.3,
            borders_layout="HORIZONTAL_LINES",
            padding=0.4,
            text_align="LEFT",
        ) as table:
            for row in (section.table.header, *section.table.rows):
                table.row([_plain(cell) for cell in row])
    for one in section.sentences:
        _pdf_text(pdf, one)
    for one in section.points:
        _pdf_text(pdf, f"-  {one}")
    for name, value in section.facts:
        pdf.set_font("helvetica", "", 8)
        pdf.cell(28, 3.7, _plain(name))
        wrap = "WORD" if " " in value else "CHAR"
        text = _plain(value)
        pdf.multi_cell(0, 3.7, text, align="L", new_x="LMARGIN", new_y="NEXT", wrapmode=wrap)


def _pdf_text(pdf: Any, text: str) -> None:
    pdf.set_font("helvetica", "", 8.6)
    pdf.multi_cell(0, 4, _plain(text), align="L", new_x="LMARGIN", new_y="NEXT")


def _plain(text: str) -> str:
    """Text in the letters of the fonts that every reader of PDF has."""
    for sign, word in _PLAIN.items():
        text = text.replace(sign, word)
    return text.encode("latin-1", "replace").decode("latin-1")


_FIGURES: Final = ("month", "one_replaced", "year_added", "year_rho_added")
_SERIES_SHOWN: Final = 10
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
