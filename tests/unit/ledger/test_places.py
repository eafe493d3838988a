"""Where a ledger is."""

from pathlib import Path
from urllib.parse import quote

import pytest

from dpdau.errors import InvalidSettingError
from dpdau.ledger.places import ledger_file, ledger_path, ledger_url

SERVER = "postgresql+psycopg://ada:s3cret@db.example/ledger?sslmode=verify-full"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a.sqlite?mode=ro",
        "postgresql://u:s3cret@h/d",
        "postgresql+psycopg://u:s3cret@h",
        "mysql://u:s3cret@h/d",
        "x",
    ],
)
def test_a_ledger_is_a_file_or_a_database(url: str) -> None:
    """Any other URL is refused with both that are taken, and its password is not shown."""
    with pytest.raises(
        InvalidSettingError, match=r"sqlite:///PATH or postgresql\+psycopg://"
    ) as no:
        ledger_url(url)

    assert "s3cret" not in str(no.value)


@pytest.mark.parametrize("password", ["p@w0rd", "p@w0/rd", "p@w0:1"])
def test_reserved_characters_are_percent_encoded(password: str) -> None:
    """An @ in a password is read where it is encoded; where not, the refusal says how."""
    encoded = ledger_url(f"postgresql+psycopg://ada:{quote(password, safe='')}@db/ledger")
    assert (password, "db") == (encoded.password, encoded.host)

    with pytest.raises(InvalidSettingError, match="percent-encoded, as %40 for @") as refused:
        ledger_url(f"postgresql+psycopg://ada:{password}@db/ledger")
    assert "w0" not in str(refused.value)


def test_a_server_has_no_file() -> None:
    """A file has a path; a server has none, and what needs one says what to do instead."""
    assert Path("/a/b.sqlite") == ledger_file("sqlite:////a/b.sqlite")
    assert ledger_file(SERVER) is None
    with pytest.raises(InvalidSettingError, match="ledger copy") as refused:
        ledger_path(SERVER)

    assert "s3cret" not in str(refused.value)
