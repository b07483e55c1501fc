"""What Kubernetes and Prometheus ask."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from yoloserve.http.dependencies import Counted
from yoloserve.http.schemas import Health
from yoloserve.http.serving import serving_of

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Does the process answer?", response_model=Health)
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@router.get(
    "/health/ready",
    summary="May requests be sent here?",
    response_model=Health,
    responses={503: {"model": Health, "description": "Draining: send new requests elsewhere"}},
)
async def ready(request: Request, response: Response) -> Health:
    """Say that the model is loaded, warm, and found what it should; and that more may come.

    The port is not open before that, so the one other answer is that of a server about to end.
    """
    status = serving_of(request.app).status()
    response.status_code = 200 if status == "ready" else 503
    return Health(status=status)


@router.get(
    "/metrics",
    summary="Metrics, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(metrics: Counted) -> Response:
    """Show the metrics in Prometheus' text format. Not `async`: collecting takes a thread."""
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
