"""The try-it page, and the pictures it offers."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from yoloserve.engine.starting import PROBE

router = APIRouter(include_in_schema=False)

PAGE = Path(__file__).parent.parent / "page"
# Nothing from elsewhere, ever: the page works without internet, and so does its safety.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
FILES = {
    "/": "index.html",
    "/page/page.css": "page.css",
    "/page/page.js": "page.js",
    "/page/differences.js": "differences.js",
    "/page/icon.svg": "icon.svg",
}


def _add(path: str, file: Path) -> None:
    @router.get(path)
    async def send() -> FileResponse:
        return FileResponse(file, headers=HEADERS)


for path, name in FILES.items():
    _add(path, PAGE / name)
_add("/page/sample.jpg", PROBE)


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Show the API. All that it needs is found beside it, below whatever prefix that is."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="yoloserve",
        swagger_js_url="static-offline-docs/swagger-ui-bundle.js",
        swagger_css_url="static-offline-docs/swagger-ui.css",
        swagger_favicon_url="page/icon.svg",
    )
