"""Walks through the running demo as the tests do, and keeps what it looks like.

`make screenshots` writes docs/images/dashboard-{desktop,phone,dark}.png.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import browser
from browser import Watched
from components import free_port

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BYTES_MAX = 150_000
COLORS = 256
START_SECONDS = 60
DEMO_USER = "00001"
VIEWS = {
    "desktop": (browser.DESKTOP | {"height": 1240}, "light"),
    "dark": (browser.DESKTOP | {"height": 1240}, "dark"),
    "phone": (browser.PHONE | {"height": 1240}, "light"),
}


def main() -> None:
    """Starts the demo, walks, writes the pictures, and says how long the first chart took."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, browser.chromium() as chromium:
        started = time.monotonic()
        demo = subprocess.Popen(
            [str(Path(sys.executable).parent / "dpdau"), "serve", "--demo", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "DATA_DIR": folder},
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(f"{base}/readyz", demo)
            secrets = tomllib.loads((Path(folder) / "demo" / "dpdau.toml").read_text("utf-8"))
            seen = Watched(chromium, base)
            browser.log_in(seen, secrets["SERVICE_API_KEY"])
            seconds = time.monotonic() - started
            _say(f"the first full chart came {seconds:.1f} s after the start")
            browser.read_charts(seen)
            _keep(seen)
            _say(browser.open_plan(seen, "for ε 3, δ 1e-6"))
            browser.erase(seen, DEMO_USER)
            browser.log_out(seen)
            assert [] == seen.problems
        finally:
            demo.terminate()
            demo.wait(START_SECONDS)


def _keep(seen: Watched) -> None:
    """Writes the overview as it looks in each view."""
    from PIL import Image

    IMAGES.mkdir(exist_ok=True)
    for name, (size, scheme) in VIEWS.items():
        seen.page.set_viewport_size(size)
        seen.page.emulate_media(color_scheme=scheme)
        seen.go("overview")
        seen.page.wait_for_load_state("networkidle")
        picture = Image.open(io.BytesIO(seen.page.screenshot())).convert("RGB")
        target = IMAGES / f"dashboard-{name}.png"
        picture.save(target, optimize=True)
        if target.stat().st_size > BYTES_MAX:
            picture.quantize(COLORS, kmeans=1).save(target, optimize=True)
        size_bytes = target.stat().st_size
        assert size_bytes <= BYTES_MAX, f"{target.name} has {size_bytes:,} bytes"
        _say(f"{target.relative_to(IMAGES.parents[1])}: {size_bytes:,} bytes")
    seen.page.set_viewport_size(browser.DESKTOP)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Returns once a service is ready."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urlopen(url, timeout=5).close()
            return
        except URLError:
            assert process.poll() is None, "the demo ended"
            assert time.monotonic() < deadline, "the demo does not answer"
            time.sleep(0.1)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
