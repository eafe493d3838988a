"""A lake is not counted live: a job for each number is what its files are for, not each second."""

import datetime as dt

from dpdau.errors import InvalidPlanError


class NoLiveDays:
    """The `LiveStore` of a store that has none: no month can be opened, so nothing is kept."""

    def open(self, month: str) -> None:
        """Refuses.

        Raises:
            InvalidPlanError: Always.
        """
        raise _refused()

    def begin(self, day: dt.date) -> None:
        """Refuses.

        Raises:
            InvalidPlanError: Always.
        """
        raise _refused()

    def advance(self, month: str, step: int) -> None:
        """Refuses.

        Raises:
            InvalidPlanError: Always.
        """
        raise _refused()

    def count(self, day: dt.date) -> int:
        """Refuses.

        Raises:
            InvalidPlanError: Always.
        """
        raise _refused()

    def put_secret(self, month: str, body: bytes) -> bytes:
        """Refuses.

        Raises:
            InvalidPlanError: Always.
        """
        raise _refused()

    def step(self, month: str) -> int | None:
        """None: no month is open."""

    def secret(self, month: str) -> bytes | None:
        """None: no month is open."""

    def end(self, before: dt.date) -> None:
        """There is nothing to destroy."""


def _refused() -> InvalidPlanError:
    """The error for what a lake does not do."""
    return InvalidPlanError(
        "Expected a store of one machine for the live counter, found one whose data lies in a lake."
    )
