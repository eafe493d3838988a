"""Structured logs that refuse private types, and the counters of the product.

Logs are one JSON object a line on stderr. They carry no user id and no exact count: a
`BoundedCount`, `Event` or `EventBatch` that is handed to a log call raises.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from dpdau.domain import BoundedCount, BudgetBlock, Event, EventBatch, PrivateValueError

_PRIVATE: Final = (BoundedCount, Event, EventBatch)


def configure_logs(*, stream: TextIO | None = None, level: str = "INFO") -> None:
    """One JSON object a line on `stream` (stderr), from structlog and `logging` alike."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        refuse_private,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one room."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def refuse_private(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Raises where a private noun is about to be logged.

    Raises:
        PrivateValueError: A value of the call, or an item of one, is private.
    """
    for key, value in event.items():
        items = value if isinstance(value, list | tuple | set) else (value,)
        if any(isinstance(item, _PRIVATE) for item in items):
            raise PrivateValueError(f"{key} is private and must not be logged")
    return event


class Metrics:
    """The counters of the product, on a registry of their own; whoever asks may read them.

    Guarantee: none counts events, users or bytes, because a count without noise would be an exact
    answer. The library's own registry is not used for the same reason: what it tells of the
    process (memory, garbage collections) follows the number of events.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.releases = Counter(
            "dpdau_releases",
            "Releases given, by metric and whether they were replayed.",
            ["metric", "replayed"],
            registry=registry,
        )
        self.refusals = Counter(
            "dpdau_refusals", "Requests refused, by error code.", ["code"], registry=registry
        )
        self.erasures = Counter("dpdau_erasures", "Users erased.", registry=registry)
        self.budget_spent = Gauge(
            "dpdau_budget_spent_ratio",
            "Share of the budget that is spent, 0..1.",
            ["metric", "period"],
            registry=registry,
        )

    def released(self, metric: str, block: BudgetBlock, *, replayed: bool) -> None:
        """Counts a release and shows the state of its budget."""
        self.releases.labels(metric, str(replayed).lower()).inc()
        self.budget_spent.labels(block.metric, block.period).set(
            block.epsilon_spent / block.epsilon_cap
        )
