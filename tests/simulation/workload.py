"""A seeded stream of requests as a team's services would send them, and worse.

Every sender has users of its own, so that the outcome for a user follows from one sender's order
alone. Days are ordinals. An item carries what must become of it: `code` where it is to be refused.
"""

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LABELS = ("ios", "android", "web")
DIMENSION = "platform"


@dataclass(frozen=True)
class Item:
    """One event, or what is sent in the place of one.

    Attributes:
        user: The sender's id of the user.
        add: Whether the days are put in.
        days: The days that it names.
        event_id: The sender's id of the event.
        label: The value of the only dimension.
        code: Why it must be refused; None where it must be taken.
        body: What is sent.
    """

    user: str
    add: bool
    days: tuple[int, ...]
    event_id: str | None
    label: str | None
    code: str | None
    body: Any


@dataclass(frozen=True)
class Batch:
    """Events that are sent as one request, under one `Idempotency-Key`."""

    batch_id: str
    items: tuple[Item, ...]

    def bodies(self) -> list[Any]:
        """What is sent."""
        return [one.body for one in self.items]


@dataclass(frozen=True)
class Erasure:
    """One user is to be forgotten."""

    user: str


Step = Batch | Erasure


@dataclass(frozen=True)
class Shape:
    """How a stream looks.

    Attributes:
        users: Users of one sender.
        days: How many days the events lie on.
        last: The newest of them.
        batch: Events of one request, at most.
        erasures: Share of the steps that erase a user.
        resent: Share of the steps that send an older batch once more.
        refused: Share of the events that must be refused.
        identified: Share of the events with an id, of which some were sent before.
    """

    users: int
    days: int
    last: int
    batch: int
    erasures: float = 0.01
    resent: float = 0.02
    refused: float = 0.01
    identified: float = 0.2


_RESENT_FROM = 5
"""A batch that is sent again is one of the last few."""


def steps(seed: int, sender: int, shape: Shape) -> Iterator[Step]:
    """What one sender sends, without end; the same for the same arguments."""
    drawn = random.Random(f"{seed} {sender}")
    sent: list[Batch] = []
    known: list[Item] = []
    for number in range(1 << 62):
        kind = drawn.random()
        if kind < shape.erasures:
            user = _user(drawn, sender, shape)
            # What is remembered of an erased user is not this stream's to say.
            known = [one for one in known if one.user != user]
            yield Erasure(user)
        elif kind < shape.erasures + shape.resent and sent:
            yield drawn.choice(sent)
        else:
            size = drawn.randint(1, shape.batch)
            items = tuple(_item(drawn, sender, shape, known) for _ in range(size))
            batch = Batch(f"{seed}-{sender}-{number}", items)
            sent = [*sent[1 - _RESENT_FROM :], batch]
            yield batch


def _user(drawn: random.Random, sender: int, shape: Shape) -> str:
    """A user; some are seen far more often than others."""
    return f"user-{sender}-{int(shape.users * drawn.random() ** 2)}"


def _item(drawn: random.Random, sender: int, shape: Shape, known: list[Item]) -> Item:
    """One event."""
    if drawn.random() < shape.refused:
        return _refused(drawn, sender, shape)
    identified = drawn.random() < shape.identified
    if identified and known and drawn.random() < 0.1:
        return drawn.choice(known)
    user = _user(drawn, sender, shape)
    add = drawn.random() < 0.75
    # Most events are of the last days; late ones reach back to the first.
    back = int(shape.days * drawn.random() ** 3)
    days: tuple[int, ...] = (shape.last - back,)
    metadata: dict[str, Any] = {}
    label = None
    if drawn.random() < 0.8:
        label = metadata[DIMENSION] = drawn.choice(LABELS)
    body: dict[str, Any] = {"user_id": user, "op": "+" if add else "-", "day": text_of(days[0])}
    if not add and drawn.random() < 0.5:
        several = drawn.sample(range(shape.last - shape.days + 1, shape.last + 1), 3)
        days = tuple(several)
        metadata["days"] = [text_of(day) for day in several]
    if metadata:
        body["metadata"] = metadata
    event_id = None
    if identified:
        event_id = body["event_id"] = f"e{drawn.getrandbits(48):x}"
    item = Item(user, add, days, event_id, label, None, body)
    if identified:
        known[:] = [*known[-20:], item]
    return item


def _refused(drawn: random.Random, sender: int, shape: Shape) -> Item:
    """What cannot be an event."""
    sound = {"user_id": _user(drawn, sender, shape), "op": "+", "day": text_of(shape.last)}
    code, change = drawn.choice(
        [
            ("unknown_op", {"op": "*"}),
            ("bad_user_id", {"user_id": ""}),
            ("bad_user_id", {"user_id": "x" * 300}),
            ("bad_day", {"day": "2026-02-30"}),
            ("future_day", {"day": text_of(shape.last + 400)}),
        ]
    )
    return Item("", True, (), None, None, code, {**sound, **change})


def text_of(day: int) -> str:
    """A day as it is sent."""
    return dt.date.fromordinal(day).isoformat()
