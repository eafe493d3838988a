"""Charts of characters: what is drawn, how wide, in which letters."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpdau.cli.charts import chart
from dpdau.cli.root import run
from dpdau.domain import Answer, Metric
from in_process import transport
from products import API_KEY, event, product, send

FIRST, LAST = dt.date(2026, 3, 1), dt.date(2026, 3, 9)
PLAIN = {"ascii_only": False, "color": False}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Answer]]:
    """Nine days of DAU that rise by one user, without the sixth, and two of MAU."""
    with product(tmp_path_factory.mktemp("charts"), DAU_BUDGET_TOTAL="9") as app:
        days = [FIRST + dt.timedelta(days=n) for n in range(9)]
        send(app, [event(f"u{n}", day) for n, day in enumerate(days) for n in range(40 + n)])
        for day in days:
            if day.day != 6:
                app.release(Metric.DAU, day)
        for day in days[-2:]:
            app.release(Metric.MAU, day)
        yield app.series(list(Metric), FIRST, LAST)


def test_each_metric_has_a_panel(answers: list[Answer]) -> None:
    """Numbers, bands behind them, whole users at the side, days below, a legend at the end."""
    text = chart(answers, width=100, **PLAIN)

    assert ["DAU, users active in a day", "MAU, users active in 30 days"] == [
        line for line in text.splitlines() if "users active" in line
    ]
    dau = text.split("MAU,")[0]
    assert 8 == dau.count("●")
    assert dau.count("░") > 200
    assert "2026-03-01" in dau and "2026-03-09" in dau
    assert "● released   ░ 95 % interval" == text.splitlines()[-1]


def test_a_day_that_was_not_released_is_a_gap(answers: list[Answer]) -> None:
    """Nothing is drawn where nothing was published: the band breaks."""
    (dau,) = [chart(answers[:5], width=100, **PLAIN)]
    line = max(dau.splitlines(), key=lambda one: one.count("░"))
    whole = chart(answers[:8], width=100, **PLAIN)
    widest = max(whole.splitlines(), key=lambda one: one.count("░"))

    assert "  " not in line[line.index("░") : line.rindex("░")]
    assert "  " in widest[widest.index("░") : widest.rindex("░")]


@pytest.mark.parametrize("width", [10, 40, 77, 200])
def test_a_chart_is_as_wide_as_asked(answers: list[Answer], width: int) -> None:
    """Every line fits, down to a least width."""
    lines = chart(answers, width=width, **PLAIN).splitlines()
    assert max(width, 40) == max(map(len, lines))


def test_letters_and_colors_are_asked_for(answers: list[Answer]) -> None:
    """ASCII has its own marks and frame; escape codes come only with color."""
    plain = chart(answers, width=80, ascii_only=True, color=False)
    colored = chart(answers, width=80, ascii_only=False, color=True)

    assert plain.isascii()
    assert "o released   : 95 % interval" in plain
    assert "\x1b" not in plain
    assert "\x1b[" in colored


def test_one_number_is_a_chart(answers: list[Answer]) -> None:
    """A single day is drawn, in the middle."""
    text = chart(answers[:1], width=60, **PLAIN)
    assert 1 == text.split("● released")[0].count("●")


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The words that show a series of this machine, which has two days."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    (tmp_path / "e.csv").write_text("user_id,day\na,2026-01-05\n")
    assert 0 == run(["init"])
    assert 0 == run(["ingest", "--from", "e.csv"])
    for day in ("2026-01-05", "2026-01-06"):
        assert 0 == run(["dau", "--day", day])
    return lambda *more: ["series", "--from", "2026-01-01", "--to", "2026-01-31", *more]


def test_a_series_is_drawn_in_place_of_a_table(
    released: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """--plot draws what is released, and says so where nothing is."""
    capsys.readouterr()
    assert 0 == run(released("--plot"))
    drawn = capsys.readouterr().out
    assert 0 == run(released("--metrics", "wau", "--plot"))

    assert "DAU, users active in a day" in drawn
    assert "noise sd" not in drawn
    assert "Nothing is released" in capsys.readouterr().out


def test_a_series_of_a_service_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --url the same chart comes from the answers of a service."""
    from dpdau import client

    monkeypatch.chdir(tmp_path)
    with product(tmp_path / "service") as app, transport(app) as way:
        send(app, [event("a", LAST)])
        app.release(Metric.DAU, LAST)
        made = client.Client
        monkeypatch.setattr(client, "Client", lambda url, **more: made(url, **more, transport=way))
        words = ["series", "--from", "2026-03-01", "--to", "2026-03-31", "--plot"]
        assert 0 == run([*words, "--url", "http://127.0.0.1", "--api-key", API_KEY])

    assert "DAU, users active in a day" in capsys.readouterr().out
