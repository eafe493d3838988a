"""A question for a page and its answer, before it is HTML, JSON or CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpdau.app import App
from dpdau.app.showing import Showing
from dpdau.domain import Caller


@dataclass(frozen=True, slots=True)
class Asked:
    """One question for a page.

    Attributes:
        app: The product.
        showing: What readers of it see.
        caller: Who asks.
        is_ready: Whether the service can write.
        cause: The code of the error that keeps it from that; empty where none is known.
        query: The parameters of the page.
    """

    app: App
    showing: Showing
    caller: Caller
    is_ready: bool
    cause: str
    query: Any


@dataclass(frozen=True, slots=True)
class Sheet:
    """The content of one page.

    Attributes:
        facts: The JSON form, and all that the HTML shows.
        columns: Of the CSV form.
        rows: Of the CSV form.
        following: The cursor of the next page, where there is one.
    """

    facts: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    following: str | None = None
