"""From settings to an application that any ASGI host can run, and to a server of our own."""

from collections.abc import Callable
from functools import partial

from fastapi import FastAPI

from yoloserve.core import EngineCore
from yoloserve.engine.starting import Engine, start
from yoloserve.http.app import create_app
from yoloserve.http.server import Server
from yoloserve.http.serving import EngineServing
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
    return create_app(EngineServing.of(core, metrics, settings))


def before(settings: Settings) -> Callable[[FastAPI], Server]:
    """Begin what takes its time besides the engine; return what makes the server."""
    if not settings.front_processes:
        return partial(Server, settings=settings)
    from yoloserve.fronts.server import FrontedServer, begun

    return partial(FrontedServer, settings=settings, fronts=begun(settings))
