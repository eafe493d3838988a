"""The route of growth: HTTP words for one verb of `app`."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from dpdau.api.openapi import guarded
from dpdau.api.routes import Product
from dpdau.api.schemas import GrowthQuery, GrowthShape
from dpdau.domain import Scope

router = APIRouter()


@router.get(
    "/growth",
    response_model=GrowthShape,
    summary="Who is new, retained, resurrected and churned between two neighboring windows.",
    **guarded(Scope.RELEASE, 409, 422),
)
def get_growth(query: Annotated[GrowthQuery, Query()], app: Product) -> Response:
    """The stored numbers at no cost, or new ones with their one charge."""
    answer = app.growth(query.end, window_days=query.window, fresh=query.fresh)
    return JSONResponse(answer.to_json())
