"""Notebooks in the percent format as pages: run by a kernel, with the outputs below the cells."""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jupytext
from nbclient import NotebookClient
from traitlets.config import Config

CELL_SECONDS: Final = 120
_MEMORY: Final = Path("/dev/shm")
"""Each notebook opens data directories that sync every write; memory has no disk to wait for."""


def rendered(sources: Sequence[Path]) -> dict[str, str]:
    """The Markdown pages of notebooks and their pictures: file name → content.

    Raises:
        CellExecutionError: A cell raised something.
    """
    notebooks = [jupytext.read(source) for source in sources]
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="dpdau-notebook-", dir=where) as folder:
        asyncio.run(_run_all(notebooks, folder))
    files: dict[str, str] = {}
    for source, notebook in zip(sources, notebooks, strict=True):
        files |= _page(notebook, source.stem)
    return files


async def _run_all(notebooks: Sequence[Any], folder: str) -> None:
    """Runs the notebooks side by side, each in a kernel of its own."""
    inherited = os.environ  # noqa: TID251 (a kernel is a process of its own)
    environment = {
        **inherited,
        "TMPDIR": folder,
        "IPYTHONDIR": f"{folder}/ipython",
        "OPENBLAS_NUM_THREADS": "1",  # The kernels share the cores; threads of one would only wait.
    }
    clients = [
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            # Sockets in the folder instead of ports: nobody else on the machine can reach them.
            config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel-{place}"}),
        )
        for place, notebook in enumerate(notebooks)
    ]
    await asyncio.gather(*(client.async_execute(env=environment) for client in clients))


def _page(notebook: Any, stem: str) -> dict[str, str]:
    """One notebook that was run, as its page and pictures."""
    pictures: dict[str, str] = {}
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [_shown(output, stem, pictures) for output in cell.outputs]
    return {f"{stem}.md": "\n\n".join(parts) + "\n", **pictures}


def _shown(output: Any, stem: str, pictures: dict[str, str]) -> str:
    """One output as Markdown; a picture becomes a file of its own."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output.data
    if "image/svg+xml" in data:
        name = f"{stem}-{len(pictures) + 1}.svg"
        pictures[name] = data["image/svg+xml"]
        return f"![{output.metadata['alt']}]({name})"
    return str(data["text/markdown"])
