"""What a writer remembers."""

import pytest

from dpdau.activity import memory
from dpdau.activity.memory import Memory


def test_an_answer_is_asked_for_once() -> None:
    """Until it is forgotten or replaced; None is an answer too."""
    known, asked = Memory(on=True), []

    def ask() -> None:
        asked.append(1)

    assert [None, None] == [known.get(("a", 1), ask) for _ in range(2)]
    known.put(("a", 1), 7)
    assert 7 == known.get(("a", 1), lambda: 8)
    known.clear()
    assert 8 == known.get(("a", 1), lambda: 8)
    assert 1 == len(asked)


def test_off_it_always_asks() -> None:
    """A reader beside a writer keeps nothing."""
    known = Memory(on=False)
    known.put(("a",), 1)

    assert [2, 3] == [known.get(("a",), lambda n=n: n) for n in (2, 3)]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many answers it starts anew."""
    monkeypatch.setattr(memory, "ANSWERS_MAX", 3)
    known = Memory(on=True)
    for number in range(20):
        assert number == known.get((number,), lambda n=number: n)
        assert len(known._answers) <= 3
