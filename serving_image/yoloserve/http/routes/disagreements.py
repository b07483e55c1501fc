"""The pictures on which this revision and the one that it shadows differ most, for who may look.

They show whatever cameras saw. There is no such page for anybody without the key that was made for
it: neither for clients, whatever they may ask, nor where everybody may ask.
"""

import platform
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from yoloserve.detections.postprocess import Detections
from yoloserve.http.middleware import DISAGREEMENTS
from yoloserve.http.serving import EngineServing, engine_serving_of
from yoloserve.shadow.album import Frame
from yoloserve.shadow.drawing import side_by_side

router = APIRouter(include_in_schema=False)

KEY = "x-yoloserve-frames-key"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@router.get(DISAGREEMENTS)
async def listed(request: Request) -> Response:
    """Say which there are, the one that differs most first."""
    serving = _serving(request)
    listing = {
        "pod": platform.node(),
        "revision": serving.settings.revision,
        "canary": serving.shadow.album.canary,
        "frames": [_entry(frame) for frame in serving.shadow.album.frames()],
    }
    return Response(orjson.dumps(listing), headers=HEADERS, media_type="application/json")


@router.get(DISAGREEMENTS + "/{name}.jpg")
async def drawn(request: Request, name: str) -> Response:
    """Show one, with the boxes of both revisions side by side. One at a time is drawn."""
    serving = _serving(request)
    async with serving.drawing:
        if (frame := serving.shadow.album.frame(name)) is None:
            raise HTTPException(404)
        picture = await serving.detector.drawn(
            frame.encoded,
            side_by_side,
            (serving.settings.revision, frame.stable),
            (serving.shadow.album.canary, frame.canary),
            frame.apart,
        )
    return Response(picture, headers=HEADERS, media_type="image/jpeg")


def _serving(request: Request) -> EngineServing:
    serving = engine_serving_of(request.app)
    if not serving.shows_frames(request.headers.get(KEY, "")):
        raise HTTPException(404)
    return serving


def _entry(frame: Frame) -> dict[str, Any]:
    apart = frame.apart
    names = apart.classes
    confused: dict[str, Counter[str]] = {}
    for one, other in zip(*(found.classes.tolist() for found in apart.confused), strict=True):
        confused.setdefault(names[one], Counter())[names[other]] += 1
    return {
        "name": frame.name,
        "at": datetime.fromtimestamp(frame.taken, UTC).isoformat(timespec="seconds"),
        "lost": _counts(apart.lost, names),
        "added": _counts(apart.added, names),
        "confused": confused,
    }


def _counts(found: Detections, names: tuple[str, ...]) -> Counter[str]:
    return Counter(names[index] for index in found.classes.tolist())
