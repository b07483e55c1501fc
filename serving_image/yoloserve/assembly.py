"""From settings to an application that any ASGI host can run."""

from fastapi import FastAPI

from yoloserve.core import EngineCore
from yoloserve.engine.starting import Engine, start
from yoloserve.http.app import create_app
from yoloserve.http.serving import Serving
from yoloserve.settings import Settings
from yoloserve.telemetry.metrics import Metrics


def assemble(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the server that the settings ask for; raises a `StartupFailure`.

    engine: one that was started already. The application warms up in its lifespan; a host that runs
    none enters `serving_of(app).running()`. That value also has what is no request: `status`,
    `drain` and the metrics.
    """
    metrics = Metrics()
    core = EngineCore.around(engine or start(settings), settings, metrics.batch_ran)
    return create_app(Serving.of(core, metrics, settings))
