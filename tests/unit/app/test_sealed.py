"""Encrypted backups: what they hide, and that nothing in them can be changed or cut off."""

import os
import stat
from pathlib import Path

import pytest

from dpdau.app import back_up, sealed
from dpdau.app.backups import back_up_ledger, check, opened, remove_leftovers
from dpdau.app.sealed import is_sealed, passphrase_from, seal, unseal
from dpdau.datadir import DataDir
from dpdau.errors import InvalidSettingError, StoreCorruptError, StoreUnavailableError
from products import NOW, event, product, product_settings, send

PASSPHRASE = b"correct horse battery staple"
CHUNK = 64 << 10


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, so that there are several, and a key that is quickly made."""
    monkeypatch.setattr(sealed, "SCRYPT_LOG_N", 4)
    monkeypatch.setattr(sealed, "CHUNK_BYTES", CHUNK)


def made(tmp_path: Path, sizes: tuple[int, ...]) -> tuple[Path, Path]:
    """A folder with files of some sizes, and the file that it was sealed into."""
    folder, target = tmp_path / "plain", tmp_path / "sealed"
    (folder / "activity").mkdir(parents=True)
    for number, size in enumerate(sizes):
        (folder / "activity" / f"secret-name-{number}").write_bytes(os.urandom(size))
    with target.open("wb") as sink:
        seal(folder, sink, PASSPHRASE)
    return folder, target


def unsealed(tmp_path: Path, source: Path, passphrase: bytes = PASSPHRASE) -> dict[str, bytes]:
    """What a sealed file holds."""
    into = tmp_path / f"into-{len(list(tmp_path.iterdir()))}"
    into.mkdir()
    unseal(source, into, passphrase)
    for path in into.rglob("*"):
        assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077
    return contents(into)


def contents(folder: Path) -> dict[str, bytes]:
    """Name → content of each file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("sizes", [(), (0,), (1, 3 * CHUNK, CHUNK - 512), (CHUNK, CHUNK)])
def test_what_was_sealed_comes_back(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Whatever the sizes; the same content is never sealed into the same bytes, nor its names."""
    folder, target = made(tmp_path, sizes)
    again = tmp_path / "again"
    with again.open("wb") as sink:
        seal(folder, sink, PASSPHRASE)

    assert contents(folder) == unsealed(tmp_path, target)
    assert target.read_bytes()[50:] != again.read_bytes()[50:]
    assert b"secret-name" not in target.read_bytes()
    assert (True, False) == (is_sealed(target), is_sealed(folder))


def test_another_passphrase_is_one_clear_error(tmp_path: Path) -> None:
    """It is told from damage, before anything is written."""
    _, target = made(tmp_path, (CHUNK,))
    with pytest.raises(InvalidSettingError, match=r"passphrase .* found another"):
        unsealed(tmp_path, target, PASSPHRASE + b"!")
    assert [] == list(tmp_path.glob("into-*/*"))


@pytest.mark.parametrize("place", [0.2, 0.5, 0.99])
def test_a_changed_byte_is_found(tmp_path: Path, place: float) -> None:
    """Wherever it is in the chunks."""
    _, target = made(tmp_path, (3 * CHUNK,))
    content = bytearray(target.read_bytes())
    content[int(len(content) * place)] ^= 1
    target.write_bytes(content)
    with pytest.raises(StoreCorruptError, match="changed or cut short"):
        unsealed(tmp_path, target)


def test_chunks_cannot_be_cut_off_moved_or_added(tmp_path: Path) -> None:
    """At the edge of a chunk, after the header, swapped, twice, and with one of another file."""
    _, target = made(tmp_path, (4 * CHUNK,))
    content, start, step = target.read_bytes(), 82, CHUNK + 16
    assert target.stat().st_size > start + 4 * step
    first, second = content[start : start + step], content[start + step : start + 2 * step]
    rest = content[start + 2 * step :]
    for changed in (
        content[: start + 2 * step],
        content[:start],
        content[:-1],
        content[:start] + second + first + rest,
        content[:start] + first + first + rest,
        content + first,
        content[:-3],
    ):
        target.write_bytes(changed)
        with pytest.raises(StoreCorruptError, match="changed or cut short"):
            unsealed(tmp_path, target)


@pytest.mark.parametrize("header", [b"", b"dpdau-backup-1\n", b"dpdau-backup-1\n" + b"\xff" * 80])
def test_a_header_that_is_none_takes_no_memory(tmp_path: Path, header: bytes) -> None:
    """What it asks for is bounded, so a forged one stops nobody."""
    (tmp_path / "forged").write_bytes(header)
    with pytest.raises(StoreCorruptError, match="encrypted backup"):
        unsealed(tmp_path, tmp_path / "forged")


def test_a_passphrase_is_not_short(tmp_path: Path) -> None:
    """The end of the line is no part of it; a file that is not there is named."""
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE + b"\n")
    assert PASSPHRASE == passphrase_from(file)
    file.write_bytes(b"short\n")
    with pytest.raises(InvalidSettingError, match="16 bytes or more"):
        passphrase_from(file)
    with pytest.raises(InvalidSettingError, match="nowhere"):
        passphrase_from(tmp_path / "nowhere")


def test_a_product_is_backed_up_without_a_byte_in_the_clear(tmp_path: Path) -> None:
    """Only the file is where it was to be; opened, it is the backup that a folder would be."""
    data, elsewhere = DataDir(tmp_path / "data"), tmp_path / "elsewhere"
    with product(tmp_path) as app:
        send(app, [event(f"user-{number}") for number in range(50)])
        data.card_key.write_bytes(b"signs")
        how = {"clock": lambda: NOW, "passphrase": PASSPHRASE}
        report = back_up(data, app.ledger, elsewhere / "copy", **how)  # type: ignore[arg-type]
        head = back_up_ledger(data, app.ledger, elsewhere / "ledger", passphrase=PASSPHRASE)
        for again in (elsewhere / "copy", elsewhere / "ledger"):
            with pytest.raises(InvalidSettingError, match="new place"):
                back_up(data, app.ledger, again, **how)  # type: ignore[arg-type]
        made_at = [one.facts for one in app.ledger.audit_log() if one.kind == "backup"]

    assert [{"encrypted": True}] == made_at
    assert ["copy", "ledger"] == sorted(one.name for one in elsewhere.iterdir())
    assert 0 == stat.S_IMODE((elsewhere / "copy").stat().st_mode) & 0o077
    settings = product_settings(tmp_path)
    with opened(data, elsewhere / "copy", PASSPHRASE) as plain:
        found = check(settings, data, plain)
        assert b"signs" == (plain / "card.key.pem").read_bytes()
    assert (report.head_hash, report.files) == (found.report.head_hash, found.report.files)
    with opened(data, elsewhere / "ledger", PASSPHRASE) as plain:
        assert plain.is_file()
        assert head.seq == report.entries
    assert [] == list(data.root.glob("backup-*"))
    with pytest.raises(InvalidSettingError, match="BACKUP_PASSPHRASE"):
        opened(data, elsewhere / "copy", None).__enter__()


def test_what_was_cut_short_is_removed(tmp_path: Path) -> None:
    """The draft in the clear, and half of an encrypted file; no link and nothing behind one."""
    data = DataDir(tmp_path / "data").create()
    draft, kept = data.root / "backup-all-1.dpdau.partial", tmp_path / "kept"
    for folder in (draft, kept, data.backups):
        folder.mkdir()
        (folder / "rows").write_bytes(b"left")
    (data.backups / "all-1.dpdau.partial").write_bytes(b"half")
    (data.backups / "all-2.partial").symlink_to(kept)

    assert ["backup-all-1.dpdau.partial", "backups/all-1.dpdau.partial"] == remove_leftovers(data)
    assert b"left" == (kept / "rows").read_bytes()


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    """Nothing is left there or here."""
    data = DataDir(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with product(tmp_path) as app, pytest.raises(StoreUnavailableError):
        back_up(
            data, app.ledger, tmp_path / "file" / "copy", clock=lambda: NOW, passphrase=PASSPHRASE
        )
    assert [] == list(data.root.glob("backup-*"))
