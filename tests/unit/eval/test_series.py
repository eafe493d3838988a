"""The figure of a series: pictures, from releases alone."""

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dpdau.cli.root import run
from dpdau.domain import Metric, Segment
from dpdau.errors import NotFoundError
from dpdau.eval.series import draw_series
from products import event, product, send

DAY = dt.date(2026, 3, 5)


def test_a_series_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    """Two panels, named by their range, in files that are their owner's alone."""
    with product(tmp_path / "home") as app:
        send(app, [event(f"u{n}", DAY) for n in range(30)])
        for offset in (0, 1, 3):
            app.release(Metric.DAU, DAY + dt.timedelta(days=offset))
        app.release(Metric.MAU, DAY)
        answers = app.series(list(Metric), DAY, DAY + dt.timedelta(days=3))
        png, svg = draw_series(answers, tmp_path / "new" / "figures")

    assert {0o600} == {path.stat().st_mode & 0o777 for path in (png, svg)}
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (png.parent, png.parents[1])}
    stem = "series_dau_mau_2026-03-05_2026-03-08"
    assert [f"{stem}.png", f"{stem}.svg"] == [png.name, svg.name]
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "{http://www.w3.org/2000/svg}svg" == ElementTree.parse(svg).getroot().tag


def test_no_picture_takes_the_place_of_another(tmp_path: Path) -> None:
    """Each segment, and each choice of metrics, has a name of its own that every disk takes."""
    values = ("ios", "iOS", "../../x", "ü", "y" * 200)
    with product(tmp_path / "home") as app:
        send(app, [event("u", DAY)])
        app.release(Metric.DAU, DAY)
        (plain,) = app.series([Metric.DAU], DAY, DAY)
    drawn = [
        draw_series(
            [replace(plain, release=replace(plain.release, segment=Segment("platform", value)))],
            tmp_path / "figures",
        )
        for value in values
    ]
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())

    assert 2 * len(values) == len(names) == len({path for pair in drawn for path in pair})
    assert all(re.fullmatch(r"[a-z0-9_.-]{1,100}", name) for name in names)


def test_nothing_released_is_nothing_drawn(tmp_path: Path) -> None:
    """It is said, and no folder is made."""
    with pytest.raises(NotFoundError, match="found none"):
        draw_series([], tmp_path / "figures")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "2026-01-01"],
        ["--to", "2026-01-01"],
        ["--from", "2026-01-01", "--to", "2026-01-02", "--experiment-id", "trial"],
    ],
)
def test_a_range_is_whole_and_no_experiment(words: list[str]) -> None:
    """`plots` draws a range, or an experiment."""
    assert 2 == run(["plots", *words])
