"""The pages for a browser hold no data and load nothing from elsewhere."""

import re

import httpx
import pytest

from dpdau.api.pages import CONTENT_SECURITY_POLICY

PAGES = ["/", "/docs"]
ASSETS = ["/assets/dashboard.js", "/assets/style.css"]


@pytest.mark.parametrize("path", PAGES + ASSETS)
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


def test_every_asset_of_the_page_is_served(keyless_http: httpx.Client) -> None:
    """What the page links to is there, with its own media type."""
    linked = re.findall(r'(?:src|href)="(/[^"]*)"', keyless_http.get("/").text)

    types = {path: keyless_http.get(path).headers["content-type"] for path in linked}
    assert {
        "/assets/icon.svg": "image/svg+xml",
        "/assets/style.css": "text/css; charset=utf-8",
        "/assets/dashboard.js": "text/javascript; charset=utf-8",
        "/docs": "text/html; charset=utf-8",
    } == types


def test_the_listing_has_every_operation(keyless_http: httpx.Client) -> None:
    """Each route of the document is on the page with its scope."""
    document, page = keyless_http.get("/openapi.json").json(), keyless_http.get("/docs").text

    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<h2>{method.upper()} {path}</h2>" in page
    assert "key with scope ingest" in page
