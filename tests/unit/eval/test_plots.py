"""The figures: which there are, that they are pictures, and what they need."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dpdau.errors import NotFoundError, StoreUnavailableError
from dpdau.eval import plots
from dpdau.eval.plots import FIGURES, draw
from dpdau.eval.results import summarize

Make = Callable[..., dict[str, Any]]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
@pytest.mark.xdist_group("quick-experiment")
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_each_figure_is_a_picture(quick_run: Path, name: str) -> None:
    """The PNG file has its signature and the SVG file parses, with its caption as text or paths."""
    folder = quick_run / "plots" / "trial"
    root = ElementTree.parse(folder / f"{name}.svg").getroot()

    assert (folder / f"{name}.png").read_bytes().startswith(PNG)
    assert "{http://www.w3.org/2000/svg}svg" == root.tag
    assert len(list(root.iter())) > 100


def test_a_figure_without_data_is_not_drawn(
    outcome: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an adversarial removal there is no figure around one; progress is told all the same.

    The figures with data are left out here, for they are drawn above.
    """
    one = "mau_around_removal"
    monkeypatch.setattr(plots, "FIGURES", {one: FIGURES[one]})
    outcomes = [outcome([1, 2], metric="mau")]
    told: list[tuple[int, int]] = []
    paths = draw(
        {"outcomes": outcomes, "summary": summarize(outcomes)},
        tmp_path,
        on_done=lambda done, total: told.append((done, total)),
    )

    assert [] == paths
    assert [(1, 1)] == told


def test_a_missing_library_is_named(
    outcome: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib the error says how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(NotFoundError, match="eval"):
        draw({"outcomes": [], "summary": []}, tmp_path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file in the place of the folder is a store that is not available."""
    (tmp_path / "taken").write_text("")

    with pytest.raises(StoreUnavailableError):
        draw({"outcomes": [], "summary": []}, tmp_path / "taken")
