"""The pages of a card: made from the statement alone, on one page, and compared with it."""

import json
import re
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpdau.app.card_pages import html_page, json_page, pdf_page, verify
from dpdau.app.signed_card import Card, CardKey
from dpdau.errors import CardMismatchError, NotFoundError, UnsupportedMediaError

KEY = CardKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
PAIR = {"epsilon": 3.0, "delta": 1e-6}
IMPLIED = dict.fromkeys(("month", "one_replaced", "year_added", "year_rho_added"), PAIR)


def signed(**changes: Any) -> Card:
    """A card of a month with every kind of budget and as many series as are shown."""
    return KEY.sign(
        {
            "format": 1,
            "month": "2026-03",
            "issued_at": "2026-04-02T08:00:00+00:00",
            "timezones": ["Europe/Berlin"],
            "unit": "user",
            "neighboring_relation": "add_or_remove_one",
            "published": {
                "numbers": 1116,
                "days": 31,
                "days_of_month": 31,
                "releases_sha256": "ab" * 32,
                "series": [
                    {
                        "metric": metric,
                        "window_days": days,
                        "segment": None if n == 0 else f"platform=<b>{n}</b>",
                        "numbers": 31,
                        "half_width_95_max": 4321 + n,
                    }
                    for n in range(4)
                    for metric, days in (("dau", 1), ("wau", 7), ("mau", 30))
                ],
            },
            "budgets": [
                {
                    **IMPLIED,
                    "budget": budget,
                    "filter": "zcdp",
                    "mechanisms": [mechanism],
                    "releases": 93,
                    "allowances": 2,
                    "rho_spent": "1/8",
                    "epsilon_charged": 2.999999999,
                }
                for budget, mechanism in (
                    ("plan", "lattice_gaussian"),
                    ("dau", "discrete_laplace"),
                    ("wau", "discrete_gaussian"),
                    ("mau", "discrete_gaussian"),
                    ("live", "lattice_gaussian"),
                )
            ],
            "together": IMPLIED,
            "not_charged_yet": [{"budget": "dau", "epsilon": 3.0, "delta": 0.0}],
            "code_versions": ["0.1.0"],
            "ledger": {"id": "12" * 16, "entries": 12345, "head_hash": "cd" * 32},
            **changes,
        }
    )


def test_each_page_is_verified_without_anything_else() -> None:
    """HTML, PDF and JSON give the card back, and are the same bytes each time."""
    card = signed()

    assert card == verify(html_page(card).encode()) == verify(json_page(card).encode())
    assert card == verify(pdf_page(card))
    assert pdf_page(card) == pdf_page(card)


def test_a_full_month_fits_one_page_of_paper() -> None:
    """Five budgets and more series than are shown still make one page of PDF."""
    assert b"/Count 1\n" in pdf_page(signed())


def test_the_page_of_html_stands_alone() -> None:
    """No script, no other host, and what is in a name is text."""
    page = html_page(signed())

    assert "http" not in page
    assert ["application/json"] == re.findall(r'<script type="([^"]+)"', page)
    assert "<b>" not in page
    assert "platform=&lt;b&gt;1&lt;/b&gt;" in page
    assert "and 2 more series" in page
    for words in ("(3.00, 1e-6)", "Europe/Berlin", "cd" * 32, "More allowances", "dau (3.00, 0)"):
        assert words in page


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (">(3.00, 1e-6)<", ">(0.30, 1e-6)<", r"'\(3.00, 1e-6\)', found '\(0.30, 1e-6\)'"),
        ("</main>", "<p>Certified.</p></main>", "'Certified.'"),
        ("in Europe/Berlin;", "in UTC;", "in UTC"),
        ("</style>", "dd{display:none}</style>", "same words in another markup"),
        ("</body>", "<img src=x></body>", "same words in another markup"),
    ],
)
def test_a_changed_page_is_found(good: str, bad: str, said: str) -> None:
    """A number, a sentence, or a rule that hides something: each is found, words are named."""
    page = html_page(signed())
    assert good in page

    with pytest.raises(CardMismatchError, match=said):
        verify(page.replace(good, bad, 1).encode())


def test_line_ends_of_a_mail_program_do_no_harm() -> None:
    """CRLF and a byte-order mark are not changes."""
    page = html_page(signed()).replace("\n", "\r\n")
    assert signed() == verify(b"\xef\xbb\xbf" + page.encode())


def test_a_changed_statement_is_found() -> None:
    """A page that fits its statement is of no use when the statement was not signed."""
    card = signed()
    forged = Card({**card.statement, "month": "2026-04"}, card.public_key, card.signature)
    for page in (html_page(forged).encode(), json_page(forged).encode(), pdf_page(forged)):
        with pytest.raises(CardMismatchError, match="signature"):
            verify(page)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \n"])
def test_a_page_that_stands_in_json_is_found(before: bytes) -> None:
    """A file that a browser shows as a page is no card, whatever signed JSON is in it."""
    forged = html_page(signed()).replace("(3.00, 1e-6)", "(0.03, 1e-6)").replace("</script>", "")
    body = {"a": " ".join(forged.split()) + "<!--", **signed().to_json()}
    polyglot = before + json.dumps(body, ensure_ascii=False).encode()

    with pytest.raises(CardMismatchError, match="beside it"):
        verify(polyglot)


def test_json_is_compared_whole() -> None:
    """A further member, and one that stands there twice, are found; line ends do no harm."""
    page = json_page(signed())
    windows = b"\xef\xbb\xbf" + page.replace("\n", "\r\n").encode()
    further = page.replace("{", '{"note": "certified",', 1)
    twice = page.replace("{", '{"statement": {"month": "1999-01"},', 1)

    assert signed() == verify(windows)
    assert "<" not in page
    for forged in (further, twice, page + " "):
        with pytest.raises(CardMismatchError, match="beside it"):
            verify(forged.encode())


def test_figures_that_no_page_can_show_are_refused() -> None:
    """A number above every float, under a good signature, is an answer and no crash."""
    figures = {name: {"epsilon": 10**4000, "delta": 1e-6} for name in IMPLIED}
    with pytest.raises(CardMismatchError, match="no page can show"):
        verify(json_page(signed(together=figures)).encode())


def test_a_changed_pdf_is_found() -> None:
    """One digit of the text that is drawn is enough."""
    page = pdf_page(signed())
    assert page.count(b"(3.00,") > 1

    with pytest.raises(CardMismatchError, match="PDF was changed"):
        verify(page.replace(b"(3.00,", b"(0.30,", 1))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"%PDF-1.4", b"<html></html>", b'{"statement": 1}', b"\xff" * 99],
)
def test_what_is_no_card_is_refused(content: bytes) -> None:
    """Any other file is one, and no crash."""
    with pytest.raises(UnsupportedMediaError):
        verify(content)


@pytest.mark.parametrize("changes", [{"format": 2}, {"budgets": [{}]}, {"month": 3}])
def test_a_statement_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    """A good signature on something else is not a card of this format."""
    with pytest.raises(UnsupportedMediaError, match="format"):
        verify(json.dumps(signed(**changes).to_json()).encode())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fpdf2 the error says how to get it, and what does without."""
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(NotFoundError, match=r"dp-dau-mau\[card\]"):
        pdf_page(signed())
