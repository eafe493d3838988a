"""What all fronts of one service share: the rates that callers keep, and whether it is ready."""

from typing import Final, Self

from dpdau.app.admission import INGEST_RATE_LIMIT, RATE_LIMIT, RateLimiter
from dpdau.app.readiness import Provable, Readiness


class Reception:
    """One for each service, whatever it speaks.

    Guarantee: an address and a key have one window for questions and one for events, whichever
    fronts their requests come through.

    Args:
        readiness: Whether the product can write.
        asking: The windows of questions.
        taking: The windows of what brings events.
    """

    def __init__(self, readiness: Readiness, *, asking: RateLimiter, taking: RateLimiter) -> None:
        self.readiness: Final = readiness
        self.asking: Final = asking
        self.taking: Final = taking

    @classmethod
    def of(
        cls,
        product: Provable,
        *,
        rate_limit: str = RATE_LIMIT,
        ingest_rate_limit: str = INGEST_RATE_LIMIT,
    ) -> Self:
        """A new one, with limits as `1000/second`."""
        return cls(
            Readiness(product),
            asking=RateLimiter(rate_limit),
            taking=RateLimiter(ingest_rate_limit),
        )
