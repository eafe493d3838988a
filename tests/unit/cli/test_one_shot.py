"""`dpdau release`: a file or a table in, a month of numbers out, in words and in JSON."""

import json
import shlex
from pathlib import Path

import pytest

from dpdau.cli.root import run

MONTH = ["--month", "2026-02"]
ROWS = "".join(f"u{day},+,2026-02-{day:02d}\n" for day in range(1, 29))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of events and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HASH_SALT_SECRET", raising=False)
    (tmp_path / "e.csv").write_text("user_id,op,day\n" + ROWS + "u1,*,2026-02-01\n")
    return tmp_path


def test_json_is_a_list_of_releases(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each as `series --json` has it; what was read goes to standard error."""
    assert 0 == run(["release", "--from", "e.csv", *MONTH, "--json"])
    made = capsys.readouterr()
    releases = json.loads(made.out)

    assert (84, {False}) == (len(releases), {one["replayed"] for one in releases})
    assert {"dau", "wau", "mau"} == {one["metric"] for one in releases}
    assert {3.0} == {one["epsilon_used"] for one in releases}
    assert 0.0 == releases[0]["budget_remaining"] == releases[0]["budget"]["epsilon_remaining"]
    assert "29 received = 28 accepted + 1 rejected" in made.err
    assert "row 28: unknown_op" in made.err
    assert "u1" not in made.err


def test_tables_say_what_was_charged_and_the_second_time_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One table for each metric; asking again shows the same numbers from the ledger."""
    assert 0 == run(["release", "--from", "e.csv", *MONTH, "--epsilon", "1.5", "--delta", "1e-7"])
    first = capsys.readouterr()
    again = run(["release", "--from", "gone.csv", *MONTH, "--epsilon", "1.5", "--delta", "1e-7"])
    second = capsys.readouterr()

    assert "charged once: ε 1.5 at δ 1e-07 for all 84 numbers of 2026-02" in first.out
    assert (0, True) == (again, "gone.csv was not read, nothing was charged" in second.err)
    assert first.out.splitlines()[:-1] == second.out.splitlines()[:-1]
    assert "stored before, nothing charged" in second.out


def test_a_dry_run_prices_and_reads_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file need not be there; the price is that of the month's plan."""
    assert 0 == run(["release", "--from", "gone.csv", *MONTH, "--dry-run"])
    shown = capsys.readouterr().out
    assert 0 == run(["release", "--from", "gone.csv", *MONTH, "--dry-run", "--json"])
    priced = json.loads(capsys.readouterr().out)

    assert "pays for all 84 numbers of 2026-02" in shown
    assert (3.0, False, True) == (priced["epsilon"], priced["opened"], priced["affordable"])


def test_a_dry_run_ends_with_the_whole_command(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was given, to be given again; what may be a secret is left to be filled in."""
    where = "postgresql://me:hu@sh@db/d?sslmode=require&password=hush;h&table=a.b"
    given = ["--events", where, "--order", "n", *MONTH, "--epsilon", "1.5"]
    assert 0 == run(["release", *given, "--dry-run"])
    *_, asked = capsys.readouterr().out.splitlines()

    words = shlex.split(asked.partition("To buy it: ")[2])
    assert {
        "--month": "2026-02",
        "--events": "postgresql://…@db/d?sslmode=require&password=…&table=a.b",
        "--order": "n",
        "--epsilon": "1.5",
    } == dict(zip(words[2::2], words[3::2], strict=True))
    assert ["dpdau", "release"] == words[:2]


@pytest.mark.parametrize(
    ("master", "shown"),
    [
        ("local[2]", "local[2]"),
        ("sc://h:1/;use_ssl=true;token=hush", "sc://h:1/;use_ssl=true;token=…"),
        ("sc://hush@h/;token=hush?hush;token=hush", "sc://…@h/;token=…;token=…"),
    ],
)
def test_a_dry_run_names_the_engine(
    master: str, shown: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its token; a URL of files loses its keys."""
    pytest.importorskip("pyspark")
    given = ["--from", "s3a://key:hush@b/e", "--engine", master, *MONTH, "--dry-run"]
    assert 0 == run(["release", *given])
    out = capsys.readouterr().out
    assert f"--from 's3a://…@b/e' --engine {shlex.quote(shown)}" in out and "hush" not in out


def test_the_ledger_is_sound_and_every_front_shows_the_numbers(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`audit` passes after it, and `series` and `mau` find what was released."""
    assert 0 == run(["release", "--from", "e.csv", *MONTH, "--json"])
    released = {one["release_id"] for one in json.loads(capsys.readouterr().out)}
    assert 0 == run(["init"])
    capsys.readouterr()
    assert 0 == run(["audit"])
    capsys.readouterr()
    days = ["--from", "2026-02-01", "--to", "2026-02-28"]
    assert 0 == run(["series", *days, "--json"])
    series = {one["release_id"] for one in json.loads(capsys.readouterr().out)}
    assert 0 == run(["mau", "--end", "2026-02-28", "--json"])
    mau = json.loads(capsys.readouterr().out)

    assert released == series
    assert (True, True) == (mau["replayed"], mau["release_id"] in released)


def test_what_is_wrong_ends_with_its_exit_code(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 for a request that can be mended, 4 for a month that is not over."""
    cases = [
        (["--from", "gone.csv", *MONTH], 2),
        (["--from", "e.csv", "--month", "2026-2"], 2),
        (["--from", "e.csv", *MONTH, "--format", "xml"], 2),
        (["--from", "e.csv", *MONTH, "--user", "nobody"], 2),
        (["--from", "e.csv", *MONTH, "--epsilon", "much"], 2),
        (["--from", "e.csv", *MONTH, "--default-op", "*"], 2),
        (["--from", "e.csv", "--month", "2999-06"], 4),
    ]
    codes = [run(["release", *arguments]) for arguments, _ in cases]
    assert [code for _, code in cases] == codes
    assert 0 == run(["release", "--from", "e.csv", *MONTH, "--json"])
    assert "28 accepted" in capsys.readouterr().err
    assert 2 == run(["release", "--from", "e.csv", *MONTH, "--epsilon", "1"])


@pytest.fixture
def table(home: Path) -> str:
    """A DuckDB file with the same events, in a table with an order."""
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("ibis")
    with duckdb.connect("e.db") as connection:
        connection.execute(
            "create table events as select *, row_number() over () as n from 'e.csv'"
        )
    return "duckdb://e.db?table=events"


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_table_becomes_the_numbers_of_its_month(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a file does; the second time the table is not asked."""
    assert 0 == run(["release", "--events", table, "--order", "n", *MONTH, "--json"])
    made = capsys.readouterr()
    assert 0 == run(["release", "--events", table.replace("e.db", "gone.db"), *MONTH, "--json"])
    again = capsys.readouterr()
    first, second = (
        [(one["release_id"], one["estimate"]) for one in json.loads(each.out)]
        for each in (made, again)
    )

    assert (84, first) == (len(first), second)
    assert "29 received = 28 accepted + 1 rejected" in made.err
    assert '1 rows: unknown_op: Expected "+" or "-".' in made.err
    assert "the table events was not read, nothing was charged" in again.err


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_table_can_be_priced_and_its_query_seen(
    table: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither charges, neither shows the address; a price asks nothing at all."""
    gone = "postgresql://me:hush@db.example/d?sslmode=require&table=events"
    assert 0 == run(["release", "--events", gone, *MONTH, "--dry-run"])
    priced = capsys.readouterr()
    assert 0 == run(["release", "--events", table, "--order", "n", *MONTH, "--show-sql"])
    shown = capsys.readouterr().out

    assert "pays for all 84 numbers" in priced.out and "hush" not in priced.out + priced.err
    assert "LEAD(" in shown and '"w30_20260228"' in shown
    assert 0 == run(["release", "--from", "e.csv", *MONTH, "--json"])
    assert "28 accepted" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_table_and_a_file_have_their_own_options(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them is given, with what it needs; no error repeats an address."""
    far = "postgresql://me:hush@db.example/d?table=events"
    cases = [
        (MONTH, 2),
        (["--from", "e.csv", "--events", table, *MONTH], 2),
        (["--from", "e.csv", "--order", "n", *MONTH], 2),
        (["--from", "e.csv", "--show-sql", *MONTH], 2),
        (["--events", table, "--format", "csv", *MONTH], 2),
        (["--events", table, *MONTH], 2),
        (["--events", far, *MONTH], 2),
        (["--events", "postgresql://me:hush@127.0.0.1:1/d?table=events", *MONTH], 5),
    ]
    codes = [run(["release", *arguments]) for arguments, _ in cases]
    told = capsys.readouterr()

    assert [code for _, code in cases] == codes
    assert "hush" not in told.out + told.err


def test_an_engine_has_its_own_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parquet or a table, at a Spark; a price asks nothing of it, and no token is told."""
    pytest.importorskip("pyspark")
    nobody = ["--engine", "sc://127.0.0.1:1/;token=hush", *MONTH]
    far = ["--engine", "sc://far.example/;user_id=hush", *MONTH]
    cases = [
        (["--from", "e.csv", *nobody], 2),
        (["--from", "gone.parquet", "--format", "ndjson", *nobody], 2),
        (["--from", "gone.parquet", *far], 2),
        (["--from", "gone.parquet", *nobody], 5),
        (["--events", "duckdb://e.db?table=events", *nobody], 2),
        (["--events", "pyspark://?table=events", *nobody], 5),
        (["--from", "gone.parquet", "--dry-run", *nobody], 0),
    ]
    codes = [run(["release", *arguments]) for arguments, _ in cases]
    told = capsys.readouterr()

    assert [code for _, code in cases] == codes
    assert "hush" not in told.out + told.err and "far" not in told.err
