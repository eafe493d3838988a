"""The pseudonym keys that are in use today."""

from dpdau.pseudonym import Keyring, Pseudonymizer
from dpdau.release import Calendar


class Keys:
    """The keyring of a data directory, read by the calendar."""

    def __init__(self, keyring: Keyring, calendar: Calendar) -> None:
        self._keyring = keyring
        self._calendar = calendar

    def pseudonymizer(self) -> Pseudonymizer:
        """What turns a user id into the pseudonyms under every live key."""
        return Pseudonymizer(self._keyring.live(self._calendar.today()))

    def age_days(self) -> int:
        """How long the current pseudonym key has been in use."""
        return (self._calendar.clock() - self._keyring.epochs[-1].created_at).days
