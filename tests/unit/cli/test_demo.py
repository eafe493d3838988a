"""The first minute: what `dpdau serve --demo` has published and shown before it serves."""

from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.cli import demo
from dpdau.cli.service import demo_settings
from dpdau.domain import Metric, month_days


@pytest.mark.slow
def test_the_demo_publishes_and_draws_whole_months(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real data, one charge a month, charts; a second run charges nothing and shows the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "DEMO_MONTHS", ("1997-06",))
    settings = demo_settings(tmp_path / "data")
    first, last = month_days("1997-06")
    with App.open(settings, opening=False).closing() as app:
        demo.show_demo(app)
        shown = capsys.readouterr().out
        entries = app.ledger.verify().entries
        demo.show_demo(app)
        series = app.series(list(Metric), first, last)
        blocks = [app.budget(name, last) for name in ("plan", *Metric)]
        assert entries == app.ledger.verify().entries

    again = capsys.readouterr().out
    assert "69,659 events received, 69,659 accepted" in shown
    assert "0 accepted" in again
    assert shown.split("DAU, users")[1] == again.split("DAU, users")[1]
    assert (90, last) == (len(series), demo.DEMO_LAST)
    assert [1, 0, 0, 0] == [int(block.epsilon_spent > 0) for block in blocks]
    assert settings.DATA_DIR == tmp_path / "data" / "demo"
