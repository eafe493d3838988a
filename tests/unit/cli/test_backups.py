"""Backups of everything and the way back on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from dpdau.app import sealed
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


def test_encrypted_backups_are_kept_in_number_and_come_back(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, verified, and the older ones gone; restored under the passphrase and no other."""
    monkeypatch.setattr(sealed, "SCRYPT_LOG_N", 4)
    (home / "passphrase").write_text("correct horse battery staple\n")
    (home / "other").write_text("another horse battery staple\n")
    keep = ["--all", "--passphrase-file", "passphrase", "--into", "kept", "--keep", "1", "--json"]
    old = home / "kept" / "all-20200101T000000Z.dpdau"
    old.parent.mkdir()
    old.write_text("")
    assert 2 == run(["backup", "--all", "--encrypt"])
    assert "BACKUP_PASSPHRASE" in capsys.readouterr().err
    assert 2 == run(["backup", "--to", "copy", "--keep", "1"])
    capsys.readouterr()
    assert 0 == run(["backup", *keep])
    made = json.loads(capsys.readouterr().out)
    assert [str(old.relative_to(home))] == made["deleted"]
    assert [made["path"]] == [str(one.relative_to(home)) for one in (home / "kept").iterdir()]

    assert 2 == run(["restore", made["path"], "--passphrase-file", "other"])
    assert 2 == run(["restore", made["path"]])
    capsys.readouterr()
    monkeypatch.setenv("BACKUP_PASSPHRASE", "correct horse battery staple")
    before = {path: path.stat().st_mtime_ns for path in (home / "data").rglob("*")}
    assert 0 == run(["restore", made["path"], "--verify"])
    assert f"{made['path']}: 4 files" in capsys.readouterr().out
    assert before.keys() == {*(home / "data").rglob("*")}
    shutil.rmtree(home / "data" / "activity")
    assert 0 == run(["restore", made["path"], "--json"])
    assert made["path"] == json.loads(capsys.readouterr().out)["backup"]["path"]
    Path(made["path"]).rename(home / "data" / "kept.dpdau")
    assert 0 == run(["flush-deletes", "--verify"])
    assert "not searched, for it is encrypted: data/kept.dpdau" in capsys.readouterr().out

    assert 0 == run(["backup", "--encrypt", "--to", "ledger.dpdau"])
    assert 0 == run(["restore", "ledger.dpdau", "--verify"])
    assert "releases; sound" in capsys.readouterr().out


def test_an_unsound_backup_deletes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one may be the last that is good."""
    assert 0 == run(["backup", "--all"])
    (good,) = (home / "data" / "backups").iterdir()
    good.rename(good.with_name("all-20200101T000000Z"))
    rename = Path.rename

    def damaged(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            (path / "keyring" / "keyring.json").write_text("{}")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", damaged)
        assert 6 == run(["backup", "--all", "--keep", "1"])
    assert (home / "data" / "backups" / "all-20200101T000000Z").is_dir()
