"""Finishing removals and proving them, over a whole data directory."""

import datetime as dt
import threading
from pathlib import Path

import pytest

from dpdau.activity.manifest import Manifest
from dpdau.app import App, back_up, create
from dpdau.datadir import DataDir
from dpdau.domain import Metric
from dpdau.errors import StoreUnavailableError
from dpdau.ingest.event import decode_objects
from dpdau.plan import month_plan_id
from products import DAY, NOW, event, product, product_settings, send

WHO = "erased-user-0001"
PLANNED = {"RELEASE_POLICY": "plan"}
MONTH = "2026-02"
WAIT_SECONDS = 20
AFTER = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
"""The last two days of the month are not closed yet."""


def folder(root: Path) -> DataDir:
    """The data directory of a product."""
    return DataDir(root / "data")


def day(number: int) -> dt.date:
    """A day of the month."""
    return dt.date(2026, 2, number)


def test_a_proof_finds_nothing_of_an_erased_user(tmp_path: Path) -> None:
    """Nobody else is lost, nothing of the user is found, and of another everything is."""
    with product(tmp_path) as app:
        send(app, [event(WHO), event("somebody-else"), event("a-third-user", DAY, event_id="e")])
        app.erase(WHO)
        app.erasures.flush(folder(tmp_path))
        gone, there = (app.erasures.prove(folder(tmp_path), one) for one in (WHO, "somebody-else"))

        assert (True, 1, True, ()) == (gone.ok, gone.keys_searched, gone.id_searched, gone.found)
        assert gone.files > 4
        assert 3 == gone.rows
        assert not there.ok
        assert {"masks row", "the pseudonym under live key 1"} == {
            one.split(": ")[1] for one in there.found
        }


def test_an_event_that_was_received_before_does_not_bring_the_user_back(tmp_path: Path) -> None:
    """What waits to be written when its user is erased is written first, and then taken out."""
    with product(tmp_path) as app:
        send(app, [event("somebody-else")])
        gate = threading.Event()
        app.intake._commits.alone(gate.wait)
        waiting = app.intake.submit(decode_objects([event(WHO)], rules=app.rules()))
        erasing = threading.Thread(target=app.erase, args=(WHO,))
        erasing.start()
        gate.set()
        erasing.join(WAIT_SECONDS)
        app.erasures.flush(folder(tmp_path))

        assert 1 == waiting.result(WAIT_SECONDS).accepted
        assert app.erasures.prove(folder(tmp_path), WHO).ok


def test_the_id_itself_is_found_wherever_it_lies(tmp_path: Path) -> None:
    """A file with the user id anywhere under the directory is a finding; a short id is skipped."""
    with product(tmp_path) as app:
        send(app, [event("others")])
        log = folder(tmp_path).reports / "note.log"
        log.write_text("x" * 9000 + WHO)
        found = app.erasures.prove(folder(tmp_path), WHO)
        short = app.erasures.prove(folder(tmp_path), "x")

    assert (f"{log}: the user id",) == found.found
    assert (False, True) == (short.id_searched, short.ok)


def test_a_plan_keeps_a_tombstone_until_it_is_over(tmp_path: Path) -> None:
    """An open plan is named with its last day; given up, it keeps nothing; nothing is released."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        send(app, [event(WHO, day(1)), event("stays-here", day(1)), event(WHO, day(2))])
        app.release(Metric.DAU, day(2))
        receipt = app.erase(WHO)
        app.erasures.flush(folder(tmp_path))
        proof = app.erasures.prove(folder(tmp_path), WHO)
        (kept,) = proof.kept

        assert {(MONTH, day(28))} == {
            (one.kept_for, one.through) for one in receipt.tombstones or ()
        }
        assert (MONTH, day(28), 1, False) == (
            kept.kept_for,
            kept.through,
            kept.pseudonyms,
            kept.overdue,
        )
        assert proof.ok
        assert (MONTH,) == proof.user_tombstones
        log, _ = app.releases(after=None, limit=100)
        app.ledger.abandon(month_plan_id(MONTH), actor="t", reason="t")
        assert (MONTH,) == app.erasures.flush(folder(tmp_path)).months_ended
        after = app.erasures.prove(folder(tmp_path), WHO)
        assert ((), (), True) == (after.kept, after.user_tombstones, after.ok)
        assert log == app.releases(after=None, limit=100)[0]


def test_an_overdue_plan_is_named_and_not_taken(tmp_path: Path) -> None:
    """The tombstones of a month whose days nobody took stay, and the proof says that it is late."""
    with product(tmp_path, now=AFTER, **PLANNED) as app:
        send(app, [event(WHO, day(1))])
        app.release(Metric.DAU, day(1))
        app.erase(WHO)
    late = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
    with product(tmp_path, now=late, **PLANNED) as app:
        assert () == app.erasures.flush(folder(tmp_path)).months_ended
        (kept,) = app.erasures.prove(folder(tmp_path)).kept

    assert (MONTH, True) == (kept.kept_for, kept.overdue)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_backup_in_the_directory_is_searched_too(tmp_path: Path, *, encrypted: bool) -> None:
    """A backup from before the erasure holds the user, also encrypted; one from after does not."""
    create(product_settings(tmp_path), encrypt_store=encrypted, clock=lambda: NOW)
    backups = folder(tmp_path).backups
    with product(tmp_path) as app:
        send(app, [event(WHO), event("somebody-else")])
        back_up(folder(tmp_path), app.ledger, backups / "before", clock=lambda: NOW)
        app.erase(WHO)
        back_up(folder(tmp_path), app.ledger, backups / "after", clock=lambda: NOW)
        proof = app.erasures.prove(folder(tmp_path), WHO)

    assert 3 == len(proof.stores)
    assert {"before"} == {Path(one).relative_to(backups).parts[0] for one in proof.found}
    assert (1 if encrypted else 2) == len(proof.found)
    assert () == proof.problems


def test_a_backup_anywhere_in_the_directory_is_parsed(tmp_path: Path) -> None:
    """An encrypted one gives nothing away byte by byte; and one that is damaged is no crash."""
    create(product_settings(tmp_path), encrypt_store=True, clock=lambda: NOW)
    place = folder(tmp_path).root / "mine" / "monday"
    with product(tmp_path) as app:
        send(app, [event(WHO)])
        back_up(folder(tmp_path), app.ledger, place, clock=lambda: NOW)
        app.erase(WHO)
        found = app.erasures.prove(folder(tmp_path), WHO)
        (place / "activity" / "manifest.sqlite").write_bytes(b"nothing")
        damaged = app.erasures.prove(folder(tmp_path), WHO)

    assert (f"{place}/activity/manifest.sqlite: masks row",) == found.found
    assert (False, 1) == (damaged.ok, len(damaged.problems))


def test_damage_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    """A flipped bit in the rows, and a file that nothing names, are both reported."""
    with product(tmp_path) as app:
        send(app, [event(f"user-{number}") for number in range(20_000)])
        segments = folder(tmp_path).activity / "segments"
        (one,) = segments.glob("*.seg")
        body = bytearray(one.read_bytes())
        body[4000] ^= 1
        one.write_bytes(bytes(body))
        (segments / "stray.seg").write_bytes(b"half")
        problems = app.erasures.prove(folder(tmp_path)).problems

    assert 2 == len(problems)
    assert any("damaged block" in text for text in problems)
    assert any("stray.seg: no part of the store" in text for text in problems)


def test_an_erasure_is_on_record_before_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure that a crash cut short is named in the ledger, so that a restore knows of it."""

    def fail(_self: Manifest) -> None:
        raise StoreUnavailableError("busy")

    with product(tmp_path) as app:
        send(app, [event(WHO)])
        with monkeypatch.context() as patch:
            patch.setattr(Manifest, "truncate_log", fail)
            with pytest.raises(StoreUnavailableError):
                app.erase(WHO)
        erasure_id = _erasure_of(app)
        assert not app.erasure(erasure_id).files_cleared
        app.erasures.flush(folder(tmp_path))
        assert app.erasure(erasure_id).files_cleared


def _erasure_of(app: App) -> str:
    """The id of the only erasure in the audit log."""
    (one,) = [entry for entry in app.ledger.audit_log() if entry.action == "erase"]
    return str(one.facts["erasure_id"])
