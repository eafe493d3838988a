"""What anybody may see: the API listing, and the files that pages load. None of it holds data."""

from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from dpdau.api import rendering

_DOCS_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dpdau API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/style.css"></head>
<body class="plain"><main><header><h1>dpdau API</h1><p>{summary}</p></header>
<p>{description}</p>
<p>As a document: <a href="/openapi.json">openapi.json</a>. The <a href="/">dashboard</a>.</p>
{operations}</main></body></html>
"""
router = APIRouter(include_in_schema=False)


@router.api_route("/assets/{name}", methods=["GET", "HEAD"])
async def get_asset(name: str) -> Response:
    """A file that pages load."""
    if name not in rendering.ASSETS:
        raise HTTPException(404)
    return rendering.asset(name)


@router.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.api_route("/docs", methods=["GET", "HEAD"])
async def get_docs(request: Request) -> Response:
    """The OpenAPI document as a plain page."""
    return HTMLResponse(_docs(request.app.openapi()), headers=rendering.PAGE_HEADERS)


@router.get("/metrics")
def get_metrics(request: Request) -> Response:
    """The counters of the service in Prometheus' text form."""
    return Response(
        generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


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
