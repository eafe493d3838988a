"""One writer at a time."""

from pathlib import Path

from dpdau.activity.writer_lock import WriterLock


def test_the_lock_is_exclusive_until_released(tmp_path: Path) -> None:
    """A second holder waits in vain until the first one lets go; taking twice is harmless."""
    first, second = WriterLock(tmp_path / "lock"), WriterLock(tmp_path / "lock")

    assert first.take(0)
    assert first.take(0)
    assert not second.take(0.01)
    first.release()
    first.release()
    assert second.take(0)
    second.release()
