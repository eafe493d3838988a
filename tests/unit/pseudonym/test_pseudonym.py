"""Key epochs, the keyring file, and pseudonyms under one and several keys."""

import base64
import datetime as dt
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.errors import (
    DpdauError,
    InvalidEventError,
    InvalidSettingError,
    NotFoundError,
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.pseudonym import Epoch, EpochKey, Keyring, Pseudonymizer, parse_secret

SECRET = bytes(range(100, 140))
OTHER_SECRET = bytes(range(40))
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.date(2026, 3, 1)
ROTATION = dt.date(2026, 6, 1)
CANARY = "canary-user-5ad1f0"
EPOCHS = (
    Epoch(1, NOW, dt.date(1970, 1, 1), b"a" * 32),
    Epoch(2, NOW, ROTATION, b"b" * 32),
)
ONE = Keyring(SECRET, EPOCHS, in_use=1)


def clock() -> dt.datetime:
    """A fixed time."""
    return NOW


def reference(user_id: bytes, salt: bytes, secret: bytes = SECRET) -> int:
    """A pseudonym by the definition, without the copies and batches of the product."""
    key = hashlib.blake2b(salt, key=secret, person=b"dpdau-epoch1", digest_size=32).digest()
    digest = hashlib.blake2b(user_id, key=key, person=b"dau-v1", digest_size=8).digest()
    return int.from_bytes(digest, "little")


def chain(error: BaseException | None) -> str:
    """All that an error and the errors behind it would show."""
    shown = []
    while error is not None:
        shown.append(f"{error!r} {error} {vars(error)} {error.args}")
        error = error.__cause__ or error.__context__
    return " ".join(shown)


@pytest.fixture
def two() -> Keyring:
    """A keyring in the middle of a rotation."""
    return Keyring(SECRET, EPOCHS)


def test_a_pseudonym_is_the_keyed_hash_of_the_definition(two: Keyring) -> None:
    """The key comes from secret and salt, the pseudonym from key and id."""
    users = Pseudonymizer(ONE.live())

    assert (reference("zoë".encode(), b"a" * 32),) == users.one("zoë")


def test_a_planned_key_names_nobody() -> None:
    """An epoch that was never used is not live, whatever day it is."""
    assert [1] == [key.epoch_id for key in ONE.live()]


def test_after_a_rotation_both_keys_are_live_newest_first(two: Keyring) -> None:
    """The old key stays live as long as its salt is in the keyring."""
    assert [2, 1] == [key.epoch_id for key in two.live()]


def test_under_two_keys_a_user_has_two_pseudonyms(two: Keyring) -> None:
    """The newest key names the row, the older one is an alias."""
    users = Pseudonymizer(two.live())
    pseudonyms, aliases = users.many(["x", "y", "x"])
    new, old = users.one("x")

    assert (reference(b"x", b"b" * 32), reference(b"x", b"a" * 32)) == (new, old)
    assert [new, users.one("y")[0], new] == pseudonyms.tolist()
    assert [[old, users.one("y")[1], old]] == aliases.tolist()
    assert (2, 1) == users.epoch_ids


def test_the_alias_after_a_rotation_is_the_pseudonym_before_it(two: Keyring) -> None:
    """A user's rows from before a rotation can be found after it."""
    before = Pseudonymizer(ONE.live()).many(["x", "y"])[0]
    after = Pseudonymizer(two.live()).many(["x", "y"])[1]

    assert before.tolist() == after[0].tolist()


@pytest.mark.parametrize("keys", [1, 2])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()])
def test_lists_and_arrow_columns_give_the_same(keys: int, kind: pa.DataType, two: Keyring) -> None:
    """However the ids come, whole or sliced, in one piece or several, the pseudonyms are equal."""
    users = Pseudonymizer((ONE if keys == 1 else two).live())
    ids = ["a", "é", "a", "b" * 256, "c", "é"]
    column = pa.array(["skipped", *ids]).cast(kind).slice(1)
    expected = [list(users.one(one)) for one in ids]

    for given_ids in (ids, column, pa.chunked_array([column.slice(0, 2), column.slice(2)])):
        pseudonyms, aliases = users.many(given_ids)

        assert expected == np.vstack([pseudonyms[None], aliases]).T.tolist()
        assert (np.uint64, np.uint64) == (pseudonyms.dtype, aliases.dtype)
        assert (keys - 1, len(ids)) == aliases.shape


@pytest.mark.parametrize("ids", [[], pa.array([], pa.string())])
def test_no_ids_give_empty_columns(ids: object, two: Keyring) -> None:
    """An empty batch keeps its shapes."""
    pseudonyms, aliases = Pseudonymizer(two.live()).many(ids)  # type: ignore[arg-type]

    assert ((0,), (1, 0)) == (pseudonyms.shape, aliases.shape)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), max_size=20))
def test_equal_ids_alone_have_equal_pseudonyms(ids: list[str]) -> None:
    """Within a batch, two rows share a pseudonym exactly when they share the id."""
    pseudonyms = Pseudonymizer(ONE.live()).many(ids)[0].tolist()

    assert len(set(ids)) == len(set(pseudonyms))
    assert dict(zip(ids, pseudonyms, strict=True)) == {
        one: reference(one.encode(), b"a" * 32) for one in ids
    }


def test_long_columns_are_hashed_like_single_ids(two: Keyring) -> None:
    """Every id of several blocks has the pseudonyms that it has alone."""
    users = Pseudonymizer(two.live())
    ids = [f"user-{n}" for n in range(2_500)]
    current, aliases = users.many(pa.array(ids))

    alone = [users.one(ids[n]) for n in (0, 1_023, 1_024, 2_047, 2_048, 2_499)]
    places = [0, 1_023, 1_024, 2_047, 2_048, 2_499]
    assert alone == [(int(current[n]), int(aliases[0][n])) for n in places]


def test_event_ids_have_their_own_hash_and_are_never_0(two: Keyring) -> None:
    """An event id that equals a user id tells nothing about the user's pseudonym."""
    users = Pseudonymizer(two.live())
    owner, _ = users.many(["u", "u", "u"])
    hashed = users.event_ids(["x", "y", "x"], owner)

    assert hashed[0] == hashed[2]
    assert 4 == len({*hashed.tolist(), users.one("x")[0], users.one("x")[1]})
    assert hashed.tolist() == users.event_ids(pa.array(["x", "y", "x"]), owner).tolist()
    assert (hashed != 0).all()


def test_batch_ids_have_their_own_keyed_hash(two: Keyring) -> None:
    """An id has one hash under each live key, newest first, and is not in it."""
    users = Pseudonymizer(two.live())
    new, old = users.batch_ids("ada")

    assert (old,) == Pseudonymizer(ONE.live()).batch_ids("ada")
    assert 3 == len({new, old, users.batch_ids("bob")[0]})
    assert f"{users.one('ada')[0]:x}" not in new
    assert 32 == len(users.batch_ids("ada\udcff")[0])


def test_an_event_id_is_one_of_its_user(two: Keyring) -> None:
    """The same id sent for two users is two ids, so nobody can make another's a duplicate."""
    users = Pseudonymizer(two.live())
    owner, _ = users.many(["a", "b"])

    assert 2 == len(set(users.event_ids(["same", "same"], owner).tolist()))


def test_a_lone_surrogate_is_refused_without_being_shown(two: Keyring) -> None:
    """The error for an id without UTF-8 form carries nothing of the id."""
    users = Pseudonymizer(two.live())
    bad = CANARY + "\ud800"

    for call in (lambda: users.one(bad), lambda: users.many(["ok", bad])):
        with pytest.raises(InvalidEventError) as caught:
            call()
        assert CANARY not in chain(caught.value)


def test_reprs_show_no_key_and_no_id(two: Keyring) -> None:
    """Nothing that holds key material prints it."""
    users = Pseudonymizer(two.live())
    users.one(CANARY)
    shown = repr([two, users, two.live(), two.epochs, EPOCHS])

    assert CANARY not in shown
    assert "aaaa" not in shown
    assert str(SECRET)[2:-1] not in shown
    assert all(str(key.key)[2:-1] not in shown for key in two.live())


def test_a_keyring_is_found_again(tmp_path: Path) -> None:
    """Opening gives the keys that creating gave."""
    root = tmp_path / "keyring"
    made = Keyring.open_or_create(root, SECRET, clock=clock, encrypt_store=True)
    again = Keyring.open_or_create(root, SECRET, clock=clock)

    assert made.live() == again.live()
    assert made.store_key() == again.store_key()
    assert 32 == len(made.store_key() or b"")
    assert made.live()[0].key != made.store_key()
    assert made.epochs == again.epochs


def test_two_keyrings_of_one_secret_have_different_keys(tmp_path: Path) -> None:
    """The secret alone does not give the key: the salt is random."""
    first, second = (Keyring.create(tmp_path / name, SECRET, clock=clock).live() for name in "ab")

    assert first[0].key != second[0].key


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """The folder is 0700, the file 0600 even where a backup made it wider, and no draft stays."""
    root = tmp_path / "keyring"
    Keyring.create(root, SECRET, clock=clock)
    (root / "keyring.json").chmod(0o644)
    Keyring.open(root, SECRET)

    assert 0o700 == root.stat().st_mode & 0o777
    assert ["keyring.json"] == [path.name for path in root.iterdir()]
    assert 0o600 == (root / "keyring.json").stat().st_mode & 0o777


def test_the_file_holds_neither_secret_nor_key(tmp_path: Path) -> None:
    """What lies under DATA_DIR is not enough to name a user."""
    keyring = Keyring.create(tmp_path, SECRET, clock=clock, encrypt_store=True)
    content = (tmp_path / "keyring.json").read_bytes()

    for secret in (SECRET, keyring.live()[0].key, keyring.store_key() or b""):
        assert base64.b64encode(secret) not in content
        assert secret not in content
        assert secret.hex().encode() not in content


def test_several_epochs_survive_the_file(two: Keyring) -> None:
    """The form of the file does not assume one epoch."""
    again = Keyring.decode(two.encode(), SECRET)

    assert two.live() == again.live()
    assert two.epochs == again.epochs


def test_another_secret_is_refused_with_an_instruction(tmp_path: Path) -> None:
    """A changed HASH_SALT_SECRET stops the start instead of renaming every user."""
    Keyring.create(tmp_path, SECRET, clock=clock)

    with pytest.raises(SecretMismatchError, match="Set the old secret again"):
        Keyring.open_or_create(tmp_path, OTHER_SECRET, clock=clock)


def test_no_flipped_bit_changes_a_key(two: Keyring) -> None:
    """Damage is refused wherever it is; only a bit that means nothing may pass, as white space."""
    content, refused = two.encode(), 0
    for place in range(len(content) * 8):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        try:
            again = Keyring.decode(bytes(damaged), SECRET)
        except (StoreCorruptError, SecretMismatchError, SchemaVersionError):
            refused += 1
        else:
            assert (two.live(), two.epochs) == (again.live(), again.epochs)

    assert refused > len(content) * 8 * 0.7


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\xff", b'{"version": null}', b"[" * 9999]
)
def test_what_is_no_keyring_is_refused(content: bytes) -> None:
    """A file that was cut off or replaced gives one clear error."""
    with pytest.raises(StoreCorruptError):
        Keyring.decode(content, SECRET)


def test_a_newer_version_is_refused_as_such(two: Keyring) -> None:
    """A later product's file is not called damaged."""
    newer = two.encode().replace(b'"version": 2', b'"version": 3').replace(b"salt", b"seed")

    with pytest.raises(SchemaVersionError):
        Keyring.decode(newer, SECRET)


def test_a_missing_keyring_is_not_made_by_opening(tmp_path: Path) -> None:
    """Only creating makes one."""
    with pytest.raises(NotFoundError):
        Keyring.open(tmp_path, SECRET)
    assert not Keyring.exists(tmp_path)


def test_encryption_cannot_be_asked_for_afterwards(tmp_path: Path) -> None:
    """A store that was made in the clear is not passed off as encrypted."""
    Keyring.create(tmp_path, SECRET, clock=clock)

    with pytest.raises(InvalidSettingError, match="store key"):
        Keyring.open_or_create(tmp_path, SECRET, clock=clock, encrypt_store=True)
    assert Keyring.open(tmp_path, SECRET).store_key() is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file in the place of the folder gives the product's own error."""
    (tmp_path / "keyring").write_text("in the way")

    with pytest.raises(StoreUnavailableError):
        Keyring.open_or_create(tmp_path / "keyring", SECRET, clock=clock)


def test_processes_that_create_at_once_end_with_one_keyring(tmp_path: Path) -> None:
    """Four processes that start together all have the same key."""
    program = (
        "import datetime as dt, sys, pathlib\n"
        "from dpdau.pseudonym import Keyring\n"
        "now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "ring = Keyring.create(pathlib.Path(sys.argv[1]), bytes(range(100, 140)),"
        " clock=lambda: now, encrypt_store=True)\n"
        "sys.stdout.write(ring.live()[0].key.hex() + ring.store_key().hex())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "keyring")]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for one in running:
        assert one.stdout is not None
        assert "ready\n" == one.stdout.readline()
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    keys = {one.communicate()[0] for one in running}

    assert 1 == len(keys)
    assert {0} == {one.returncode for one in running}
    assert ["keyring.json"] == [path.name for path in (tmp_path / "keyring").iterdir()]


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"short",
        b"x" * 31,
        b"x" * 32,
        b"ab" * 20,
        bytes(range(65)),
        b"{{HASH_SALT_SECRET_0123456}}....}}",
        b"please-changeme-please-changeme-0123456789",
    ],
)
def test_a_secret_that_is_none_is_refused(secret: bytes, tmp_path: Path) -> None:
    """Too short, too long, uniform and placeholder secrets never make a keyring."""
    with pytest.raises(InvalidSettingError, match="Make one with") as caught:
        Keyring.open_or_create(tmp_path / "keyring", secret, clock=clock)
    assert not secret or repr(secret)[2:-1] not in chain(caught.value)
    assert not (tmp_path / "keyring").exists()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_read_from_base64(encode: object) -> None:
    """Both alphabets are taken, with space around."""
    secret = bytes(range(200, 248))

    assert secret == parse_secret(f" b64:{encode(secret).decode()}\n")  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "{{HASH_SALT_SECRET}}",
        "b64:",
        "b64:{{HASH_SALT_SECRET}}",
        "b64:c2hvcnQ=",
        "b64:é",
        "correct horse battery staple correct horse battery",
        "b64:" + "A" * 44,
        "b64:QUJD" * 9,
    ],
)
def test_a_text_that_holds_no_secret_is_refused(text: str) -> None:
    """The message says how to make a secret and does not repeat what was set."""
    with pytest.raises(InvalidSettingError, match="Make one with") as caught:
        parse_secret(text)
    content = text.strip().removeprefix("b64:")
    assert not content or content not in chain(caught.value)


def test_a_long_secret_counts_whole() -> None:
    """A secret beyond 64 bytes is taken, and each of its bytes matters."""
    long = bytes(range(96))
    other = long[:-1] + b"x"
    first, second = (parse_secret("b64:" + base64.b64encode(one).decode()) for one in (long, other))

    assert 64 == len(first) == len(second)
    assert first != second


def test_the_command_in_the_message_makes_a_secret_that_is_taken() -> None:
    """What the message tells a user to do works."""
    with pytest.raises(DpdauError) as caught:
        parse_secret("")
    assert 'echo "b64:$(openssl rand -base64 32)"' in caught.value.message
    assert 32 == len(parse_secret("b64:" + base64.b64encode(bytes(range(32))).decode()))


def test_an_epoch_key_is_a_value() -> None:
    """Two derivations of one epoch compare equal."""
    assert EpochKey(1, b"k" * 32) == EpochKey(1, b"k" * 32)
