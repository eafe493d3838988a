"""Backups of everything and the way back on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from dpdau.app.gateway import READS_AGAIN, feed_of
from dpdau.cli.root import run
from dpdau.cli.session import local_app
from dpdau.ingest.kafka.messages import NOTHING


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A working directory with one user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    row = {"user_id": "ada", "op": "+", "day": "2026-01-05"}
    (tmp_path / "events.ndjson").write_text(json.dumps(row) + "\n")
    assert 0 == run(["init"])
    assert 0 == run(["ingest", "--from", "events.ndjson"])
    capsys.readouterr()
    return tmp_path


def test_everything_comes_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is written, checked, and restored after the activity was lost."""
    assert 0 == run(["backup", "--all", "--to", "copy", "--json"])
    assert 4 == json.loads(capsys.readouterr().out)["files"]
    assert 0 == run(["restore", "copy", "--verify"])
    assert "sound" in capsys.readouterr().out
    shutil.rmtree(home / "data" / "activity")
    assert 0 == run(["restore", "copy"])
    assert "restored" in capsys.readouterr().out
    assert 0 == run(["flush-deletes", "--verify", "--json"])
    assert json.loads(capsys.readouterr().out)["proof"]["rows"] >= 1


def test_an_older_folder_needs_the_option_by_name(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it nothing changes and who would come back is named; with it, they are told again."""
    assert 0 == run(["backup", "--all", "--to", "copy"])
    assert 0 == run(["erase", "ada"])
    assert 2 == run(["restore", "copy", "--json"])
    (erasure_id,) = json.loads(capsys.readouterr().err)["erasures_since"]
    assert 0 == run(["restore", "copy", "--accept-older-activity"])

    told = capsys.readouterr().out
    assert f"Erase again: the user of erasure {erasure_id} is in it." in told
    assert "1 entries of the ledger are newer" in told
    assert "Kafka" not in told


def feed() -> None:
    """Notes that the store is fed by Kafka."""
    with local_app() as app:
        source = app.keys.source_name(feed_of("dpdau-events"))
        app.intake.submit_consumed(NOTHING, {source: 1}).result()


@pytest.mark.parametrize("fed_before", [True, False])
@pytest.mark.parametrize("erased", [True, False])
def test_a_store_that_kafka_feeds_is_read_again_before_erasures_are_repeated(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    erased: bool,
    fed_before: bool,
) -> None:
    """Only where somebody comes back with it, there is something to wait for; also where the store
    was fed since the backup."""
    if fed_before:
        feed()
    else:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert 0 == run(["backup", "--all", "--to", "copy"])
    if not fed_before:
        feed()
    if erased:
        assert 0 == run(["erase", "ada"])
    assert 0 == run(["restore", "copy", "--accept-older-activity"])

    assert erased == ("first `dpdau consume --until-end`" in capsys.readouterr().out)
    with local_app() as app:
        assert erased == (app.intake.offset(READS_AGAIN) is not None)


def test_a_backup_goes_to_the_data_directory_unless_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger alone into a file, everything into a folder; a folder that is none is refused."""
    assert 0 == run(["backup"])
    assert 0 == run(["backup", "--all"])
    names = sorted(path.name for path in (home / "data" / "backups").iterdir())
    (home / "empty").mkdir()

    assert ["all-", "ledger-"] == [name[: name.index("-") + 1] for name in names]
    assert 2 == run(["restore", "empty"])
