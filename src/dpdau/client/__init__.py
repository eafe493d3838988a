"""The verbs over HTTP, blocking or awaited, and sending in the background."""

from dpdau.client.client import AsyncClient, Client
from dpdau.client.outbox import BatchSummary, RejectedEvent, SenderLimits, SenderStats
from dpdau.client.retry import Retry
from dpdau.client.sender import AsyncSender, Sender

__all__ = [
    "AsyncClient",
    "AsyncSender",
    "BatchSummary",
    "Client",
    "RejectedEvent",
    "Retry",
    "Sender",
    "SenderLimits",
    "SenderStats",
]
