"""Packs what the executors of a Spark need of dpdau into one archive for --archives.

Usage: python deploy/spark/package.py dist/dpdau-spark.zip

The archive has the package and the libraries that it loads on an executor, as they are installed
here. So it goes with executors of the same operating system, processor and minor version of Python.
"""

import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import dpdau

LIBRARIES = ("msgspec", "numpy", "pyarrow", "tzdata")
UNUSED = {"include", "tests", "__pycache__", "src"}
"""Folders inside a library that nothing loads."""
UNUSED_LIBRARY = "flight"
"""In the name of a shared library that nothing loads, a sixth of them all."""
SUFFIXES = {".pyc", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".a"}


def contents() -> Iterator[tuple[Path, str]]:
    """Each file, and its name in the archive."""
    root = Path(dpdau.__file__).parent
    for path in sorted(root.rglob("*.py")):
        yield path, f"dpdau/{path.relative_to(root).as_posix()}"
    for name in LIBRARIES:
        for file in distribution(name).files or ():
            is_loaded = not UNUSED & set(file.parts) and file.suffix not in SUFFIXES
            is_loaded = is_loaded and UNUSED_LIBRARY not in file.name
            if is_loaded and ".." not in file.parts:
                yield Path(str(file.locate())), file.as_posix()


def main(target: Path) -> None:
    """Writes the archive, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".draft")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, name in contents():
            archive.write(path, name)
    draft.replace(target)
    sys.stdout.write(f"{target}: {target.stat().st_size / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
