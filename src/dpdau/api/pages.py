"""The pages for a browser: the dashboard's shell and the API listing. Neither holds data.

A browser cannot send `X-API-Key` by itself, so the shell is public: its script asks for the key,
keeps it in memory only, and fetches `/series` with it. Nothing is loaded from another host.
"""

from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Frame-Options": "DENY"}
_ASSETS: Final = {
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "style.css": "text/css",
}
_DOCS_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dpdau API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/assets/style.css"></head>
<body><header><h1>dpdau API</h1><p>{summary}</p></header><main>
<p>{description}</p>
<p>The same as a document: <a href="/openapi.json">openapi.json</a>. The <a href="/">page</a>.</p>
{operations}</main></body></html>
"""
router = APIRouter(include_in_schema=False)


@router.get("/")
async def get_dashboard() -> Response:
    """The dashboard's shell."""
    return HTMLResponse(_asset("index.html"), headers=_HEADERS)


@router.get("/assets/dashboard.js")
async def get_script() -> Response:
    """The dashboard's script."""
    return _served("dashboard.js")


@router.get("/assets/icon.svg")
async def get_icon() -> Response:
    """The icon of both pages."""
    return _served("icon.svg")


@router.get("/assets/style.css")
async def get_style() -> Response:
    """The style of both pages."""
    return _served("style.css")


@router.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def get_docs(request: Request) -> Response:
    """The OpenAPI document as a plain page."""
    return HTMLResponse(_docs(request.app.openapi()), headers=_HEADERS)


@router.get("/metrics")
def get_metrics(request: Request) -> Response:
    """The counters of the service in Prometheus' text form."""
    return Response(
        generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


def _served(name: str) -> Response:
    return Response(_asset(name), media_type=_ASSETS[name], headers=_HEADERS)


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    """A file of the package."""
    return files("dpdau.api").joinpath("dashboard", name).read_text("utf-8")


def _docs(document: dict[str, Any]) -> str:
    """Every operation of an OpenAPI document, as HTML."""
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    return _DOCS_PAGE.format(
        summary=escape(info["summary"]),
        description=escape(info["description"]),
        operations="\n".join(operations),
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    scope = operation.get("x-required-scope")
    needs = "no key" if scope is None else f"key with scope {scope}"
    rows = [
        (one["name"], one["in"], "required" if one.get("required") else "", _words(one))
        for one in operation.get("parameters", ())
    ]
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", media, "required", _words(body)))
    for status, answer in operation["responses"].items():
        rows.append((status, "answer", "", answer["description"]))
    cells = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f"<section><h2>{escape(method.upper())} {escape(path)}</h2>"
        f"<p>{escape(operation.get('summary', ''))} <em>({escape(needs)})</em></p>"
        f"<table><tbody>{cells}</tbody></table></section>"
    )


def _words(described: dict[str, Any]) -> str:
    """The description of a parameter or body, or the name of its shape."""
    schema = described.get("schema", {})
    shape = str(schema.get("$ref", schema.get("items", {}).get("$ref", ""))).rpartition("/")[2]
    return str(described.get("description") or schema.get("description") or shape)
