"""Pages from templates, and the files that they load; all of it is in the package."""

import datetime as dt
import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import HTMLResponse, Response

from dpdau import __version__
from dpdau.api.promises import BUDGET_NAMES
from dpdau.api.sheets import METRIC_NAMES

if TYPE_CHECKING:
    from jinja2 import Environment

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
ASSETS: Final = {
    "charts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "live.js": "text/javascript",
    "pricing.js": "text/javascript",
    "style.css": "text/css",
    "uplot-1.6.32.LICENSE.txt": "text/plain",
    "uplot-1.6.32.iife.min.js": "text/javascript",
    "uplot-1.6.32.min.css": "text/css",
}
_DIGEST_LENGTH: Final = 12
_MINUS: Final = "\N{MINUS SIGN}"


def page(template: str, *, status: int = 200, **facts: Any) -> HTMLResponse:
    """A page from its template."""
    text = _environment().get_template(template).render(facts)
    return HTMLResponse(text, status_code=status, headers=PAGE_HEADERS)


def asset(name: str) -> Response:
    """A file that pages load."""
    return Response(_text(name), media_type=ASSETS[name], headers=PAGE_HEADERS)


def users(count: int) -> str:
    """A number of users.

    Example:
        >>> users(-1234)
        '−1,234'
    """
    return f"{count:,}".replace("-", _MINUS)


def figure(number: float) -> str:
    """A parameter of privacy as people write it.

    Example:
        >>> figure(3.0), figure(0.000001), figure(1.2e-05)
        ('3', '1e-6', '1.2e-5')
    """
    text = f"{number:.6g}"
    digits, _, power = text.partition("e")
    return f"{digits}e{int(power)}" if power else text


def day(text: str) -> str:
    """A day as people read it.

    Example:
        >>> day("2026-03-01")
        '1 Mar 2026'
    """
    found = dt.date.fromisoformat(text)
    return f"{found.day} {found:%b %Y}"


def month_name(text: str) -> str:
    """A month as people read it.

    Example:
        >>> month_name("2026-03")
        'March 2026'
    """
    return f"{dt.date.fromisoformat(f'{text}-01'):%B %Y}"


def moment(text: str) -> str:
    """A moment in UTC, to the minute.

    Example:
        >>> moment("2026-03-01T09:30:10.5+00:00")
        '1 Mar 2026, 09:30 UTC'
    """
    found = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    return f"{found.day} {found:%b %Y, %H:%M} UTC"


@lru_cache(maxsize=len(ASSETS))
def _text(name: str) -> str:
    return files("dpdau.api").joinpath("dashboard", "static", name).read_text("utf-8")


@lru_cache(maxsize=len(ASSETS))
def _address(name: str) -> str:
    """Where a page finds a file: another address for another content, so it may be kept."""
    digest = hashlib.sha256(_text(name).encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"/assets/{name}?v={digest}"


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("dpdau.api", "dashboard/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "users": users,
        "figure": figure,
        "day": day,
        "month_name": month_name,
        "moment": moment,
    }
    found.globals |= {
        "asset": _address,
        "version": __version__,
        "budget_names": BUDGET_NAMES,
        "metric_names": {metric.value: name for metric, name in METRIC_NAMES.items()},
    }
    return found
