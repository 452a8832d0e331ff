"""Files that pages load: styles, scripts, the icon."""

from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from planner.service.dashboard.assets import assets

ROUTER = APIRouter()


@ROUTER.get("/static/{file}")
async def get_file(file: str) -> Response:
    """A file; its address holds its version, so that browsers keep it."""
    found = assets().get(file)
    if found is None:
        raise HTTPException(404, f"there is no file {file}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found.content, media_type=found.media_type, headers=headers)
