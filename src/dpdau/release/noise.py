"""Noise that is drawn ahead: once, on a clock, kept in the private store, and committed to."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from dpdau.errors import StoreCorruptError
from dpdau.mechanisms.sampling import NoiseSource

DRAW_SECONDS: Final = 0.25
"""The clock on which drawn noise is given out; drawing takes a fiftieth of it."""
_SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class NoiseDesk:
    """Draws the noise of a whole month in a thread of its own, and hands it over on a clock.

    Guarantee: who waits for it waits for a multiple of `seconds`, so that the time of the request
    that opens a plan tells nothing of the noise.

    Source: Jin, McMurtry, Rubinstein, Ohrimenko 2022, on the timing of discrete samplers.
    """

    source: NoiseSource
    seconds: float = DRAW_SECONDS
    timer: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = time.sleep

    def draw(self, drawing: Callable[[NoiseSource], tuple[int, ...]]) -> tuple[int, ...]:
        """The noise of every number of a plan, secret; `drawing` takes it from the source."""
        started = self.timer()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise") as thread:
            drawn = thread.submit(drawing, self.source).result()
        if self.seconds > 0:
            late = (self.timer() - started) % self.seconds
            self.pause(self.seconds - late)
        return drawn


def secret_of(noise: Sequence[int]) -> bytes:
    """What the private store keeps of drawn noise, with a salt."""
    return json.dumps({"salt": secrets.token_hex(_SALT_BYTES), "noise": list(noise)}).encode()


def commitment_of(secret: bytes) -> str:
    """What the ledger keeps of the noise: salted, so that it tells nothing of it."""
    return hashlib.sha256(secret).hexdigest()


def noise_of(secret: bytes | None, *, commitment: str | None, plan_id: str) -> tuple[int, ...]:
    """The noise that was committed to.

    Raises:
        StoreCorruptError: It is gone or it is another one. Fresh noise for the rest of the month
            would void the charge, so there is no way on.
    """
    if secret is None or commitment_of(secret) != commitment:
        raise StoreCorruptError(
            f"Expected the noise of plan {plan_id} that the ledger commits to, found "
            f"{'none' if secret is None else 'other noise'}: the activity store is not the "
            "one that the plan was opened with. Put that store back; or give the plan up with "
            "`dpdau plan abandon` and buy its other days.",
            plan_id=plan_id,
        )
    return tuple(json.loads(secret)["noise"])
