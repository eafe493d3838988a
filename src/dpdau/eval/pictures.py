"""How figures are drawn and stored: one style, each figure as PNG and as SVG."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpdau.errors import NotFoundError, StoreUnavailableError
from dpdau.eval.folders import make_private

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Save = Callable[[str, Figure], list[Path]]

__all__ = ["saving"]

_DPI: Final = 150
_RC: Final[Any] = {
    "font.size": 10.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "dpdau",
}


@contextmanager
def saving(folder: Path) -> Iterator["Save"]:
    """What stores a figure under a name in a folder, as long as the style holds.

    Raises:
        NotFoundError: matplotlib is not installed.
        StoreUnavailableError: The files cannot be written there.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise NotFoundError(
            "Expected matplotlib, found none; get it with: pip install 'dp-dau-mau[eval]'"
        ) from None

    def save(name: str, figure: "Figure") -> list[Path]:
        paths = [folder / f"{name}.png", folder / f"{name}.svg"]
        make_private(folder, paths)
        figure.savefig(paths[0], dpi=_DPI)
        figure.savefig(paths[1], metadata={"Date": None})
        return paths

    try:
        make_private(folder, ())
        with rc_context(_RC):
            yield save
    except OSError as error:
        raise StoreUnavailableError(
            f"Expected a folder that can be written, found {folder}: {error.strerror}."
        ) from None
