"""Opening the ledger, and the two ways to touch it: a chained write and a covered read.

Whatever leaves the ledger is covered by the high-water mark first, so a number that somebody has
seen can never be forgotten by restoring an older copy.
"""

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, insert, select, update

from dpdau.domain import Clock
from dpdau.errors import LedgerCorruptError
from dpdau.ledger import schema
from dpdau.ledger.canonical import instant_text
from dpdau.ledger.chain import Chain, Head, hash_at, read_head
from dpdau.ledger.engine import Database
from dpdau.ledger.mark import HighWaterMark, Mark
from dpdau.ledger.tables import identity, probe

T = TypeVar("T")

GENESIS_SEQ: Final = 1
_PROBE_ID: Final = 1
_LEDGER_ID_BYTES: Final = 16


class Transactions:
    """An open ledger database with its chain and its mark; closed where it is refused.

    Raises:
        LedgerCorruptError: The ledger is missing, older than the mark, or not the mark's.
        SchemaVersionError: A newer version wrote it.
    """

    def __init__(
        self, database: Database, *, mark_path: Path, clock: Clock, busy_timeout_seconds: float
    ) -> None:
        self.clock = clock
        self.mark = HighWaterMark(mark_path, timeout_seconds=busy_timeout_seconds)
        self.database = database
        self._covered_lock = threading.Lock()
        self._covered = Head(seq=0, hash="")
        try:
            self.ledger_id = self._open()
        except BaseException:
            self.database.close()
            raise

    def write(self, name: str, work: Callable[[Chain], T]) -> T:
        """Runs one chained transaction; moves the mark before the result is handed out."""

        seen = self._covered

        def unit(connection: Connection) -> tuple[T, Head]:
            chain = Chain(connection, at=self.clock())
            _require_same_history(connection, chain.head, seen)
            return work(chain), chain.head

        result, head = self.database.run(name, unit)
        self._cover(head)
        return result

    def read(self, name: str, work: Callable[[Connection], T]) -> T:
        """Runs one read snapshot; moves the mark up to it before the result is handed out."""

        # Before the snapshot is taken: another thread may commit and cover more after it.
        seen = self._covered

        def unit(connection: Connection) -> tuple[T, Head]:
            head = read_head(connection)
            _require_same_history(connection, head, seen)
            return work(connection), head

        result, head = self.database.run(name, unit, write=False)
        self._cover(head)
        return result

    def check_writable(self) -> None:
        """Proves that a durable write works now, in the ledger and beside it.

        Raises:
            LedgerConflictError: Another writer held the ledger for too long.
            LedgerUnavailableError: A write fails.
        """
        row = {"probe_id": _PROBE_ID, "at": instant_text(self.clock())}

        def unit(connection: Connection) -> None:
            if not connection.execute(update(probe).values(row)).rowcount:
                connection.execute(insert(probe), row)

        self.database.run("check_writable", unit)
        self.mark.check_writable()

    def _cover(self, head: Head) -> None:
        """Moves the mark up to a head that is committed."""
        if head.seq <= self._covered.seq:
            return
        self.mark.advance(Mark(self.ledger_id, head.seq, head.hash))
        with self._covered_lock:
            if head.seq > self._covered.seq:
                self._covered = head

    def _open(self) -> str:
        """Checks the ledger against its mark, then migrates it, then moves the mark to its head."""
        with self.mark.hold():
            mark = self.mark.read()
            path = self.database.path
            if mark is not None and path is not None and not path.exists():
                raise self._missing(mark)
            self.database.create_file()
            revision = self.database.run("open", schema.current_revision, write=False)
            if revision is not None:
                self.database.run(
                    "check_mark", lambda connection: self._check(connection, mark), write=False
                )
            elif mark is not None:
                raise self._missing(mark)
            if revision != schema.REVISIONS[-1]:
                self.database.run("migrate", self._migrate, schema=True)
            ledger_id, head = self.database.run("identify", _identify, write=False)
            self.mark.move(Mark(ledger_id, head.seq, head.hash))
            self._covered = head
            return ledger_id

    def _migrate(self, connection: Connection) -> None:
        """Brings the tables up to date; a new ledger gets its identity as the first entry."""
        schema.upgrade(connection)
        if connection.execute(select(identity.c.ledger_id)).scalar_one_or_none() is None:
            chain = Chain(connection, at=self.clock())
            row = {"ledger_id": secrets.token_hex(_LEDGER_ID_BYTES), "created_at": chain.at}
            chain.append("ledger", row)

    def _check(self, connection: Connection, mark: Mark | None) -> None:
        """Refuses a ledger that is not the one that the mark has seen, or is an older copy."""
        head = read_head(connection)
        if mark is None:
            # A crash between the first commit and the first mark leaves the identity alone. On a
            # server it is a new replica that joins: others have marks of what they have seen.
            if head.seq > GENESIS_SEQ and self.database.path is not None:
                raise self._unmarked(head)
            return
        found = connection.execute(select(identity.c.ledger_id)).scalar_one_or_none()
        if found != mark.ledger_id:
            raise self._foreign(str(found), mark)
        if head.seq < mark.seq:
            raise self._older(head, mark)
        if hash_at(connection, mark.seq) != mark.hash:
            raise self._rewritten(mark)

    def _missing(self, mark: Mark) -> LedgerCorruptError:
        return LedgerCorruptError(
            f"Expected the ledger with entry {mark.seq}, found no ledger at {self.database.place}: "
            "a new one would forget what was spent. Put the ledger file back, or restore the "
            f"newest backup that holds entry {mark.seq} with `dpdau restore`.",
            **self._facts(mark),
        )

    def _foreign(self, found: str, mark: Mark) -> LedgerCorruptError:
        return LedgerCorruptError(
            f"Expected ledger {mark.ledger_id}, which the high-water mark names, found ledger "
            f"{found}: it does not know what was spent here. Put the right ledger file back, or "
            "correct the ledger's URL or the data directory.",
            ledger_id=found,
            **self._facts(mark),
        )

    def _older(self, head: Head, mark: Mark) -> LedgerCorruptError:
        return LedgerCorruptError(
            f"Expected a ledger with entry {mark.seq} or more, found one that ends at entry "
            f"{head.seq}: it is an older copy and does not know the last "
            f"{mark.seq - head.seq} entries, so the same budget could be spent twice. Put the "
            f"newer ledger file back, or restore a backup that holds entry {mark.seq} with "
            "`dpdau restore`.",
            ledger_seq=head.seq,
            **self._facts(mark),
        )

    def _rewritten(self, mark: Mark) -> LedgerCorruptError:
        return LedgerCorruptError(
            f"Expected entry {mark.seq} to have the hash of the high-water mark, found another: "
            "the ledger was rewritten, or an older copy was restored and written to. Put the "
            f"ledger file back that holds this entry {mark.seq}, or restore its backup with "
            "`dpdau restore`.",
            **self._facts(mark),
        )

    def _unmarked(self, head: Head) -> LedgerCorruptError:
        return LedgerCorruptError(
            f"Expected a high-water mark beside a ledger of {head.seq} entries, found none: "
            "nothing shows that this is the newest copy. Put the mark's file back. If this "
            "ledger is a backup on a new machine, bring it in with `dpdau restore`.",
            ledger_seq=head.seq,
            **self._facts(None),
        )

    def _facts(self, mark: Mark | None) -> dict[str, object]:
        """Where to look."""
        return {
            "ledger": self.database.place,
            "mark": str(self.mark.path),
            "mark_seq": None if mark is None else mark.seq,
        }


def _identify(connection: Connection) -> tuple[str, Head]:
    """Who this ledger is, and where it ends."""
    found = connection.execute(select(identity.c.ledger_id)).scalar_one_or_none()
    if found is None:
        raise LedgerCorruptError("Expected a ledger with an identity, found tables without one.")
    return found, read_head(connection)


def _require_same_history(connection: Connection, head: Head, seen: Head) -> None:
    """Refuses a file that was put in the ledger's place while it is open.

    Args:
        connection: A transaction.
        head: The head in it.
        seen: A head that was committed before it began.

    Raises:
        LedgerCorruptError: What this process has seen is not in the file.
    """
    if seen.seq and (head.seq < seen.seq or hash_at(connection, seen.seq) != seen.hash):
        raise LedgerCorruptError(
            f"Expected the ledger to go on from entry {seen.seq}, found another history that "
            f"ends at {head.seq}: it was replaced while it was open. Stop, and put the "
            "newest ledger back."
        )
