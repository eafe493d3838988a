"""The verbs over HTTP."""

from dpdau.client.client import Client

__all__ = ["Client"]
