"""The command line on a data directory of its own: words, exit codes, and where output goes."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpdau.cli.root import run
from dpdau.errors import StoreUnavailableError
from in_process import transport
from products import API_KEY, product

DAYS = [f"2026-01-{day:02d}" for day in range(1, 11)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory after `dpdau init`, for releases on demand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEASE_POLICY", "on_demand")
    assert 0 == run(["init"])
    return tmp_path


@pytest.fixture
def loaded(home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A working directory with three users: on 10, 3 and 1 days."""
    rows = [("a", day) for day in DAYS] + [("b", day) for day in DAYS[7:]] + [("c", DAYS[-1])]
    lines = [json.dumps({"user_id": user, "op": "+", "day": day}) for user, day in rows]
    (home / "events.ndjson").write_text("\n".join(lines) + "\n")
    assert 0 == run(["ingest", "--from", "events.ndjson"])
    capsys.readouterr()
    return home


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json and returns what it printed, parsed."""

    def asked(*words: str) -> Any:
        capsys.readouterr()
        code = run([*words, "--json"])
        out, err = capsys.readouterr()
        assert 0 == code, err
        return json.loads(out)

    return asked


def test_init_makes_secrets_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `init` keeps the secrets; the file is its owner's alone."""
    first = (home / "dpdau.toml").read_text()
    assert 0 == run(["init"])

    assert first == (home / "dpdau.toml").read_text()
    assert 0o600 == (home / "dpdau.toml").stat().st_mode & 0o777
    assert "kept as it is" in capsys.readouterr().out
    assert "HASH_SALT_SECRET" not in capsys.readouterr().out


def test_init_encrypts_a_new_store_and_refuses_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--encrypt belongs to the first `init`."""
    monkeypatch.chdir(tmp_path)
    assert 0 == run(["init", "--encrypt"])
    (tmp_path / "e.csv").write_text("user_id,day\nalice,2026-01-01\n")
    assert 0 == run(["ingest", "--from", "e.csv"])
    assert 0 == run(["dau", "--day", "2026-01-01"])

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert 0 == run(["init"])
    assert 2 == run(["init", "--encrypt"])
    assert "invalid_setting" in capsys.readouterr().err


def test_exact_prints_the_counts_of_the_contract(loaded: Path, ask: Callable[..., Any]) -> None:
    """`exact --json` gives one row for each metric and day, with the contract's keys."""
    rows = ask("exact", "--metrics", "dau,wau,mau", "--from", DAYS[8], "--to", DAYS[9])

    assert [2, 3, 2, 3, 2, 3] == [row["exact"] for row in rows]
    assert {"metric", "day", "window_days", "segment", "exact"} == set(rows[0])
    assert [("dau", 1), ("wau", 7), ("mau", 30)] == [
        (row["metric"], row["window_days"]) for row in rows[::2]
    ]
    wide = ask("exact", "--metrics", "mau", "--window", "2", "--from", DAYS[9], "--to", DAYS[9])
    assert [(2, 3)] == [(row["window_days"], row["exact"]) for row in wide]


def test_exact_warns_on_standard_error(loaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The warning goes to standard error, so that a pipe still gets JSON."""
    assert 0 == run(["exact", "--from", DAYS[0], "--to", DAYS[0]])
    out, err = capsys.readouterr()

    assert "private" in err
    assert "private" not in out


def test_a_release_is_replayed(loaded: Path, ask: Callable[..., Any]) -> None:
    """The same command twice gives the same number; the second is free."""
    first, second = (ask("mau", "--end", DAYS[9]) for _ in range(2))

    assert (first["estimate"], first["release_id"]) == (second["estimate"], second["release_id"])
    assert (False, True) == (first["replayed"], second["replayed"])
    assert 1 == second["budget"]["release_count"]
    assert first["exact_value"] is None
    assert [second] == ask("series", "--from", DAYS[0], "--to", DAYS[9])


def test_tables_are_for_people(loaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the numbers come as a table with interval and price."""
    assert 0 == run(["dau", "--day", DAYS[9]])
    assert 0 == run(["series", "--from", DAYS[9], "--to", DAYS[9]])
    assert 0 == run(["series", "--from", DAYS[0], "--to", DAYS[0]])
    assert 0 == run(["budget", "all", "--day", DAYS[9]])
    assert 0 == run(["config", "show"])
    out = capsys.readouterr().out

    for words in ("95 % interval", "charged", "Nothing is released", "filter", "GRACE_HOURS"):
        assert words in out


def test_growth_is_shown_as_cells_and_totals(
    loaded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six rows that add up, and what it cost; the second time, nothing."""
    for expected in ("charged once for all", "stored before, nothing charged"):
        assert 0 == run(["growth", "--end", DAYS[9], "--window", "1"])
        out = capsys.readouterr().out
        rows = [line.split() for line in out.splitlines() if line.strip()]
        shown = {row[0]: int(row[4]) for row in rows if len(row) > 4 and row[2] == "…"}
        assert ["new", "retained", "resurrected", "churned", "current", "previous"] == list(shown)
        assert shown["current"] == shown["new"] + shown["retained"] + shown["resurrected"]
        assert shown["previous"] == shown["retained"] + shown["churned"]
        assert expected in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["dau"], 2),
        (["growth"], 2),
        (["growth", "--end", "2026-01-01", "--window", "0"], 2),
        (["growth", "--end", "2199-01-01"], 4),
        (["nonsense"], 2),
        (["dau", "--day", "yesterday"], 2),
        (["mau", "--end", "2026-01-01", "--window", "65"], 2),
        (["mau", "--end", "2026-01-01", "--segment", "platform=ios"], 2),
        (["mau", "--end", "2026-01-01", "--segment", "ios"], 2),
        (["series", "--metrics", "yau", "--from", "2026-01-01", "--to", "2026-01-02"], 2),
        (["budget", "yau"], 2),
        (["ingest", "--from", "no-such-file.ndjson"], 2),
        (["ingest", "--from", "dpdau.toml"], 2),
        (["erase", ""], 2),
        (["keys", "create", "--scope", "everything", "--label", "x"], 2),
        (["keys", "revoke", "no-such-key"], 2),
        (["doctor", "--check", "weather"], 2),
        (["generate-synthetic", "--out", "x.docx"], 2),
        (["serve", "--no-auth", "--host", "0.0.0.0"], 2),
        (["serve", "--unsafe-debug", "--host", "0.0.0.0"], 2),
        (["dau", "--day", "2199-01-01"], 4),
        (["dau", "--day", "2026-01-01", "--url", "http://127.0.0.1:1"], 5),
    ],
)
def test_exit_codes(home: Path, words: list[str], code: int) -> None:
    """Each kind of failure ends with the exit code of the contract."""
    assert code == run(words)


def test_out_of_budget_ends_with_3_and_the_budget(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal says what the budget holds; with --json as an object on standard error."""
    monkeypatch.setenv("DAU_BUDGET_TOTAL", "0.3")
    assert 0 == run(["dau", "--day", DAYS[0]])
    capsys.readouterr()

    assert 3 == run(["dau", "--day", DAYS[1], "--json"])
    problem = json.loads(capsys.readouterr().err)
    assert "budget_exhausted" == problem["code"]
    assert "dau" == problem["budget"]["metric"]


def test_a_grant_allows_more_and_stays_visible(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]
) -> None:
    """`reset-budget` erases nothing: the cap doubles, the spending stays."""
    monkeypatch.setenv("DAU_BUDGET_TOTAL", "0.3")
    ask("dau", "--day", DAYS[0])
    block = ask("reset-budget", "dau", "2026-01", "--reason", "a correction was due")
    ask("dau", "--day", DAYS[1])
    log = ask("audit", "--since", "2020-01-01")["log"]

    assert (0.6, 0.3) == (block["epsilon_cap"], block["epsilon_spent"])
    assert "a correction was due" in json.dumps(log)


def test_a_dry_run_charges_nothing(loaded: Path, ask: Callable[..., Any]) -> None:
    """--dry-run shows price and precision."""
    quote = ask("wau", "--end", DAYS[9], "--dry-run")

    assert (True, 0.5) == (quote["affordable"], quote["epsilon"])
    assert 0 == ask("budget", "wau", "--day", DAYS[9])["release_count"]


def test_erase_takes_the_user_out(loaded: Path, ask: Callable[..., Any]) -> None:
    """After `erase` the exact counts are those of the others."""
    receipt = ask("erase", "a")
    rows = ask("exact", "--metrics", "dau", "--from", DAYS[9], "--to", DAYS[9])

    assert 10 == receipt["days_touched"]
    assert [2] == [row["exact"] for row in rows]


def test_a_file_read_again_under_its_name_changes_nothing(
    home: Path, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill the rest is taken, and then nothing; other events in between stay."""
    from dpdau.ingest import files

    monkeypatch.setattr(files, "CHUNK_ROWS", 4)
    lines = [json.dumps({"user_id": f"u{n}", "op": "+", "day": DAYS[0]}) for n in range(10)]
    (home / "e.ndjson").write_text("\n".join(lines[:4]) + "\n")
    words = ["ingest", "--from", "e.ndjson", "--batch-id", "january"]
    ask(*words)
    (home / "minus.csv").write_text(f"user_id,op,day\nu0,-,{DAYS[0]}\n")
    ask("ingest", "--from", "minus.csv")
    (home / "e.ndjson").write_text("\n".join(lines) + "\n")
    reports = [ask(*words) for _ in "12"]

    assert [(6, 4), (0, 10)] == [(one["accepted"], one["duplicate"]) for one in reports]
    assert 9 == exact(ask, DAYS[0])


def test_a_file_sent_again_to_a_service_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its name, whatever day it is here; a rejection has its row in the file."""
    from dpdau import app
    from dpdau.cli.data import ingest_file
    from dpdau.client import Client, verbs
    from dpdau.ingest import files

    monkeypatch.setattr(files, "CHUNK_ROWS", 5)
    monkeypatch.setattr(verbs, "EVENTS_MAX", 2)
    days = ["2026-03-12", *["2026-03-01"] * 5, "2026-03-12", "2026-04-01", "2026-03-01"]
    lines = [json.dumps({"user_id": f"u{n}", "op": "+", "day": day}) for n, day in enumerate(days)]
    lines[3] = "not json"
    (home / "e.ndjson").write_text("\n".join(lines))
    reports = []
    with (
        product(home / "service") as service,
        transport(service) as way,
        Client("http://127.0.0.1", API_KEY, transport=way) as client,
    ):
        for day in (5, 15):
            now = dt.datetime(2026, 3, day, tzinfo=dt.UTC)
            monkeypatch.setattr(app, "system_clock", lambda now=now: now)
            reports.append(ingest_file(client, "e.ndjson", batch_id="march"))

    assert [(9, 7, 0), (9, 0, 7)] == [
        (one.received, one.accepted, one.duplicate) for one in reports
    ]
    for one in reports:
        assert [(3, "bad_json"), (7, "future_day")] == [
            (rejection.index, rejection.code.value) for rejection in one.rejected
        ]


def test_a_file_that_ended_early_is_gone_on_with(
    home: Path,
    ask: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only the rest is taken, told on standard error; read in another way it is another file."""
    from dpdau.cli import output
    from dpdau.ingest import files

    def stopped(progress: object, position: int, events: int) -> None:
        raise StoreUnavailableError("Expected to go on.")

    monkeypatch.setattr(files, "CHUNK_ROWS", 3)
    lines = [json.dumps({"user_id": f"u{n}", "op": "+", "day": DAYS[0]}) for n in range(10)]
    (home / "e.ndjson").write_text("\n".join(lines))
    with monkeypatch.context() as patched:
        patched.setattr(output.ByteProgress, "move", stopped)
        assert 5 == run(["ingest", "--from", "e.ndjson"])
    other = ask("ingest", "--from", "e.ndjson", "--batch-id", "other")
    capsys.readouterr()
    assert 0 == run(["ingest", "--from", "e.ndjson"])
    out, err = capsys.readouterr()
    whole = ask("ingest", "--from", "e.ndjson")

    assert "7 received = 7 accepted" in out
    assert " s, " in err and " events/s" in err
    assert "e.ndjson: an earlier run ended early; going on at row 3." in err
    assert [10, 10] == [one["received"] for one in (other, whole)]
    assert 10 == exact(ask, DAYS[0])


def test_a_file_read_again_without_a_name_is_applied_again(
    home: Path, ask: Callable[..., Any]
) -> None:
    """The last event in arrival order decides: in, out, in is in."""
    for name, op in (("p", "+"), ("m", "-")):
        (home / f"{name}.csv").write_text(f"user_id,op,day\nu,{op},{DAYS[0]}\n")
    reports = [ask("ingest", "--from", f"{name}.csv") for name in "pmp"]

    assert [(1, 0)] * 3 == [(one["accepted"], one["duplicate"]) for one in reports]
    assert 1 == exact(ask, DAYS[0])


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 201, "é", "a\n"])
def test_a_batch_id_that_no_header_carries_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The same names are good here and over HTTP."""
    (home / "p.csv").write_text(f"user_id,op,day\nu,+,{DAYS[0]}\n")

    assert 2 == run(["ingest", "--from", "p.csv", "--batch-id", name])
    assert "invalid_event" in capsys.readouterr().err


def test_a_default_op_is_asked_for(home: Path, ask: Callable[..., Any]) -> None:
    """NDJSON without `op` is rejected line by line, unless --default-op says what it means."""
    line = json.dumps({"user_id": "u", "day": DAYS[0]})
    (home / "e.ndjson").write_text(f"{line}\n{line}\n")
    plain = ask("ingest", "--from", "e.ndjson")
    added = ask("ingest", "--from", "e.ndjson", "--default-op", "+")

    assert (0, 2) == (plain["accepted"], plain["rejected_count"])
    assert {"missing_field"} == {one["code"] for one in plain["rejected"]}
    assert (2, 0) == (added["accepted"], added["rejected_count"])
    assert 2 == run(["ingest", "--from", "e.ndjson", "--default-op", "?"])


def exact(ask: Callable[..., Any], day: str) -> int:
    """The exact count of a day."""
    (row,) = ask("exact", "--metrics", "dau", "--from", day, "--to", day)
    return int(row["exact"])


def test_bad_rows_are_named_and_the_rest_is_taken(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each bad row has its place and reason; the user id is not shown."""
    good = json.dumps({"user_id": "u1", "op": "+", "day": "2026-01-01"})
    bad = json.dumps({"user_id": "secret-user", "op": "*", "day": "2026-01-01"})
    (home / "mixed.ndjson").write_text(f"{good}\n{bad}\nnot json\n")

    assert 0 == run(["ingest", "--from", "mixed.ndjson"])
    out, err = capsys.readouterr()
    assert "3 received = 1 accepted + 0 duplicate + 0 late + 2 rejected" in out
    assert "row 1: unknown_op" in err
    assert "row 2: bad_json" in err
    assert "secret-user" not in out + err


def test_columns_may_have_other_names(home: Path, ask: Callable[..., Any]) -> None:
    """--user and --day name the columns of a foreign file."""
    (home / "log.csv").write_text("member,when\nx,2026-01-01\ny,2026-01-01\n")
    report = ask("ingest", "--from", "log.csv", "--user", "member", "--day", "when")

    assert 2 == report["accepted"]


def test_synthetic_data_is_the_same_for_a_seed(home: Path, ask: Callable[..., Any]) -> None:
    """Two runs with one seed write the same events; another seed writes others."""
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        words = ["--users", "200", "--days", "5", "--delete-rate", "0.1", "--seed", seed]
        assert 0 == run(["generate-synthetic", "--out", f"{name}.ndjson", *words])
    a, b, c = ((home / f"{name}.ndjson").read_bytes() for name in "abc")

    assert a == b != c
    assert {"+", "-"} == {json.loads(line)["op"] for line in a.splitlines()}
    assert 0 == ask("ingest", "--from", "a.ndjson")["rejected"].__len__()


def test_keys_are_shown_once(home: Path, ask: Callable[..., Any]) -> None:
    """`keys create` shows the key, `keys list` does not; a revoked key says so."""
    made = ask("keys", "create", "--scope", "read", "--scope", "release", "--label", "report")
    assert 0 == run(["keys", "revoke", made["key_id"]])
    (listed,) = ask("keys", "list")

    assert made["api_key"].split("_")[-1] not in json.dumps(listed)
    assert (["read", "release"], "report") == (listed["scopes"], listed["label"])
    assert listed["revoked_at"]


def test_audit_finds_a_changed_ledger(loaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`audit` ends with 6 when a row was changed behind the ledger's back."""
    import sqlite3

    assert 0 == run(["dau", "--day", DAYS[0]])
    assert 0 == run(["audit"])
    with sqlite3.connect(loaded / "data" / "ledgers" / "ledger.sqlite") as raw:
        for (name,) in raw.execute(
            "select name from sqlite_master where type = 'trigger'"
        ).fetchall():
            raw.execute(f"drop trigger {name}")
        raw.execute("update charges set dp_event = replace(dp_event, '3/10', '1/10')")
    raw.close()

    assert 6 == run(["audit"])
    assert "ledger_corrupt" in capsys.readouterr().err
    assert 2 == run(["doctor", "--check", "ledger"])


def test_doctor_says_what_to_do(home: Path, ask: Callable[..., Any]) -> None:
    """Every check passes after `init`; an open permission and a missing key are found."""
    assert {"ok"} == {finding["status"] for finding in ask("doctor")}

    (home / "data").chmod(0o755)
    assert 2 == run(["doctor", "--check", "permissions"])
    (home / "data").chmod(0o700)
    (home / "dpdau.toml").write_text("GRACE_HOURS = 1\n")
    assert 2 == run(["doctor", "--check", "api-key"])
    assert 2 == run(["doctor", "--check", "secret"])


def test_backup_copies_the_ledger(
    loaded: Path, ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy is under `backups/`, private, and a ledger with the same head."""
    ask("dau", "--day", DAYS[0])
    assert 0 == run(["backup"])
    target = Path(capsys.readouterr().out.strip())

    assert target.parent.name == "backups"
    assert 0o600 == target.stat().st_mode & 0o777
    assert 0 == run(["migrate", "--dry-run"])
    assert "up to date" in capsys.readouterr().out


def test_a_restore_never_refunds(loaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest copy goes back in its place; one from before a charge is refused."""
    assert 0 == run(["backup", "--to", "old.sqlite"])
    assert 0 == run(["dau", "--day", DAYS[0]])
    assert 0 == run(["backup", "--to", "new.sqlite"])
    ledger = loaded / "data" / "ledgers" / "ledger.sqlite"
    ledger.unlink()
    assert 6 == run(["dau", "--day", DAYS[0]])

    assert 6 == run(["restore", "old.sqlite"])
    assert 6 == run(["restore", "old.sqlite", "--verify"])
    assert not ledger.exists()
    assert 0 == run(["restore", "new.sqlite", "--verify"])
    assert not ledger.exists()
    assert 0 == run(["restore", "new.sqlite", "--reason", "the disk was lost"])
    capsys.readouterr()
    assert 0 == run(["dau", "--day", DAYS[0]])
    assert "nothing charged" in capsys.readouterr().out
    assert 0 == run(["audit"])
    assert 2 == run(["restore", "nowhere.sqlite"])


def test_the_snapshot_has_the_blocks_of_every_metric(loaded: Path, ask: Callable[..., Any]) -> None:
    """`budget all --snapshot` writes what it shows."""
    shown = ask("budget", "all", "--day", DAYS[0], "--snapshot")
    written = json.loads((loaded / "data" / "reports" / "budget-snapshot.json").read_text())

    assert shown == written
    assert ["plan", "dau", "wau", "mau"] == [block["metric"] for block in written]


def test_a_start_without_any_key_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`serve` asks for a key, or for --no-auth by name."""
    secret = next(
        line for line in (home / "dpdau.toml").read_text().splitlines() if "HASH_SALT" in line
    )
    (home / "dpdau.toml").write_text(secret + "\n")

    assert 2 == run(["serve", "--port", "18999"])
    assert "SERVICE_API_KEY" in capsys.readouterr().err


def test_the_real_data_set_is_read_by_name(home: Path, ask: Callable[..., Any]) -> None:
    """`ingest --from cdnow` reads 69,659 purchases of 1997-01-01..1998-06-30."""
    report = ask("ingest", "--from", "cdnow")
    again = ask("ingest", "--from", "cdnow")
    first = dt.date(1997, 1, 1).isoformat()
    rows = ask("exact", "--metrics", "dau", "--from", first, "--to", first)

    assert (69_659, 69_659) == (report["received"], report["accepted"])
    assert (69_659, 0) == (again["duplicate"], again["accepted"])
    assert rows[0]["exact"] > 0
