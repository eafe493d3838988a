"""What anybody may see: no data, nothing from elsewhere, nothing that the policy would block."""

import re

import httpx
import pytest

from dpdau.api.rendering import ASSETS, CONTENT_SECURITY_POLICY

PAGES = ["/login", "/docs"]
OWN_ASSETS = [name for name in ASSETS if not name.startswith("uplot")]


@pytest.mark.parametrize("path", PAGES + [f"/assets/{name}" for name in OWN_ASSETS])
def test_nothing_comes_from_another_host(keyless_http: httpx.Client, path: str) -> None:
    """Every page has the policy, and names no address but the SVG namespace."""
    answer = keyless_http.get(path)

    assert 200 == answer.status_code
    assert CONTENT_SECURITY_POLICY == answer.headers["content-security-policy"]
    assert {"http://www.w3.org/2000/svg"} >= set(re.findall(r"https?://[^\s\"'<]+", answer.text))


@pytest.mark.parametrize("path", PAGES)
def test_pages_obey_their_own_policy(keyless_http: httpx.Client, path: str) -> None:
    """No inline script, style or handler: the policy would block it."""
    text = keyless_http.get(path).text

    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)


def test_the_policy_allows_only_this_host() -> None:
    """Nothing is allowed but what this service serves itself."""
    sources = set(re.findall(r"'[a-z-]+'|\S+:\S*|\*", CONTENT_SECURITY_POLICY))

    assert {"'none'", "'self'"} == sources


def test_assets_may_be_kept_and_pages_may_not(keyless_http: httpx.Client) -> None:
    """A file has another address where its content is another; it has no data, and no script of
    it makes code from text."""
    page = keyless_http.get("/login")
    assert "no-store" == page.headers["cache-control"]
    for name, kind in ASSETS.items():
        answer = keyless_http.get(f"/assets/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "public, max-age=86400" == answer.headers["cache-control"]
        assert not re.search(r"\beval\(|new Function\(|innerHTML *=", answer.text) or (
            name.startswith("uplot") and not re.search(r"\beval\(|new Function\(", answer.text)
        )
    linked = re.findall(r'(?:src|href)="/assets/([^"?]*)\?v=[0-9a-f]{12}"', page.text)
    assert {"icon.svg", "style.css"} == set(linked)
    assert 404 == keyless_http.get("/assets/../pages.py").status_code
    assert 404 == keyless_http.get("/assets/base.html").status_code


def test_the_listing_has_every_operation(keyless_http: httpx.Client) -> None:
    """Each route of the document is on the page with its scope."""
    document, page = keyless_http.get("/openapi.json").json(), keyless_http.get("/docs").text

    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<h2>{method.upper()} {path}</h2>" in page
    assert "key with scope ingest" in page
