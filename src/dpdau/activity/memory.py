"""What the one writer of a store asked before, so that it need not ask again.

Nobody else writes, so an answer stays true until the writer itself changes it. Each statement of
SQLite lets the other threads of the process run first, which costs more than the statement.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

ANSWERS_MAX: Final = 10_000
"""How many answers are kept."""

_T = TypeVar("_T")


class Memory:
    """Answers by key; keeps none where it is off, as for a reader beside a writer."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._answers: dict[tuple[object, ...], Any] = {}

    def get(self, key: tuple[object, ...], ask: Callable[[], _T]) -> _T:
        """The answer that is known, or else the one that is asked for."""
        if key not in self._answers:
            answer = ask()
            self.put(key, answer)
            return answer
        found: _T = self._answers[key]
        return found

    def put(self, key: tuple[object, ...], answer: object) -> None:
        """Keeps an answer."""
        if self._on:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            self._answers[key] = answer

    def clear(self) -> None:
        """Forgets everything."""
        self._answers.clear()
