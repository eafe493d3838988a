"""The key that signs cards, and that a reader loads nothing but what a card needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from dpdau.app.signed_card import CardKey
from dpdau.errors import NotFoundError, StoreCorruptError


def test_a_key_that_is_there_is_kept(tmp_path: Path) -> None:
    """A second maker leaves the file, and nothing beside it."""
    path = tmp_path / "key.pem"

    assert [True, False] == [CardKey.create(path), CardKey.create(path)]
    assert [path] == list(tmp_path.iterdir())


def test_a_key_file_that_is_not_one_is_named(tmp_path: Path) -> None:
    """Missing and damaged files are told apart."""
    path = tmp_path / "key.pem"
    with pytest.raises(NotFoundError, match="card --month"):
        CardKey.open(path)
    path.write_text("not a key")
    with pytest.raises(StoreCorruptError, match=r"key\.pem"):
        CardKey.open(path)


def test_a_reader_loads_no_ledger_and_no_numbers() -> None:
    """Whoever verifies a card waits for neither the database library nor arrays."""
    code = (
        "import sys, dpdau.app.card_pages, dpdau.app.signed_card\n"
        "print(sorted({'sqlalchemy', 'numpy', 'dpdau.app.product'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()
