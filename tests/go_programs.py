"""Programs that checks are made with: built or fetched once, and kept in the user's cache."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpdau" / "bin"
BUILD_SECONDS_MAX = 900


def helm() -> Path:
    """Helm: the one on the path, the one that is installed here, or one built in two minutes."""
    found = shutil.which("helm") or shutil.which("helm", path=Path(sys.executable).parent)
    return Path(found) if found else _built("helm.sh/helm/v3/cmd/helm", "v3.21.4")


def compose_loader() -> Path:
    """What `docker compose config` reads a file with: schema, references and interpolation."""
    return _built("github.com/compose-spec/compose-go/v2/cmd", "v2.16.2")


def litestream() -> Path:
    """Litestream, which copies a SQLite database while it is written."""
    found = shutil.which("litestream")
    return (
        Path(found)
        if found
        else _built("github.com/benbjohnson/litestream/cmd/litestream", "v0.5.18")
    )


def promtool() -> Path:
    """Prometheus' own tool: the one on the path, or the one of the distribution's package.

    The package is fetched and unpacked, not installed: that needs no right on this machine.
    """
    found = shutil.which("promtool")
    kept = CACHE / "promtool"
    if found or kept.exists():
        return Path(found or kept)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("promtool is not on the path, and there is no apt-get to fetch it with.")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for part in ("lists/partial", "archives/partial"):
            Path(folder, part).mkdir(parents=True)
        own = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}", "Debug::NoLocking=1"]
        apt = ["apt-get", "-qq", *(part for one in own for part in ("-o", one))]
        for command in (
            [*apt, "update"],
            [*apt, "download", "prometheus"],
            ["sh", "-c", "dpkg -x prometheus_*.deb ."],
        ):
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS_MAX,
                check=False,
            )
            if done.returncode != 0:
                pytest.skip(f"promtool could not be fetched: {done.stderr[-300:]}")
        Path(folder, "usr/bin/promtool").replace(kept)
    return kept


def _built(package: str, version: str) -> Path:
    """The program of a package; the test is skipped where it is not there and cannot be built."""
    name = package.rsplit("/", 1)[1]
    kept = CACHE / f"{package.replace('/', '-')}-{version}"
    if kept.exists():
        return kept
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"{package} is not there, and go is not on the path to build it.")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        done = subprocess.run(
            [go, "install", "-trimpath", f"{package}@{version}"],
            # Outside of the checkout, so that no module there is looked at.
            cwd=folder,
            env={**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"{package} could not be built: {done.stderr[-300:]}")
        # Whole or not at all: another worker may be building it too.
        Path(folder, name).replace(kept)
    return kept
