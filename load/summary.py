"""What a load test found, against its target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TARGET_EVENTS_PER_SECOND = (10_000, 50_000)


@dataclass(frozen=True, slots=True)
class Latency:
    """The requests of one kind; times in milliseconds, None where there were none."""

    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, times_ms: Sequence[float], errors: int) -> "Latency":
        """Of every request, not of a sample."""
        ordered = sorted(times_ms)
        return cls(len(ordered), errors, quantile(ordered, 0.5), quantile(ordered, 0.99))

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Summary:
    """One load test."""

    events: int
    seconds: float
    writes: Latency
    reads: Latency

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> "Summary":
        """From what the scenario kept."""
        kinds = {
            kind: Latency.of(measured["times_ms"][kind], measured["errors"][kind])
            for kind in ("write", "read")
        }
        return cls(measured["events"], measured["seconds"], kinds["write"], kinds["read"])

    @property
    def events_per_second(self) -> float:
        """Events that were acknowledged, each second."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_rate(self) -> float:
        """Errors among all requests, 0..1."""
        return (self.writes.errors + self.reads.errors) / max(
            1, self.writes.requests + self.reads.requests
        )

    @property
    def faults(self) -> list[str]:
        """Why the target is missed; empty where it is reached."""
        lower, found = TARGET_EVENTS_PER_SECOND[0], []
        if self.events_per_second < lower:
            found.append(f"below {lower:,} events/s, the lower end of the target")
        if self.error_rate > 0:
            found.append(f"{self.writes.errors + self.reads.errors:,} requests failed")
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events_per_second, 1),
            "target_events_per_second": list(TARGET_EVENTS_PER_SECOND),
            "error_rate": self.error_rate,
            "writes": self.writes.to_json(),
            "reads": self.reads.to_json(),
            "faults": self.faults,
        }

    def to_text(self) -> str:
        """For people."""
        low, high = TARGET_EVENTS_PER_SECOND
        lines = [
            f"events/s   {self.events_per_second:>10,.0f}   target {low:,} to {high:,}",
            f"errors     {self.error_rate:>10.2%}   target none",
        ]
        for name, kind in (("writes", self.writes), ("reads", self.reads)):
            times = "no request"
            if kind.p50_ms is not None:
                times = f"p50 {kind.p50_ms:,.1f} ms, p99 {kind.p99_ms:,.1f} ms"
            lines.append(f"{name:<10} {kind.requests:>10,}   {times}")
        lines.append("verdict    " + ("target reached" if not self.faults else "MISSED: "))
        return "\n".join(lines) + "; ".join(self.faults) + "\n"


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all is not above; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
