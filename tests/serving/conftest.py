"""What the server's tests share: pictures, small models, an app over a fake engine, a process."""

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from fastapi import applications
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from controlplane import ports
from fronted import front_of
from yoloserve.core import EngineCore
from yoloserve.detections.postprocess import Head
from yoloserve.detector import Detector
from yoloserve.engine.starting import Engine, ModelInfo
from yoloserve.http.app import create_app
from yoloserve.http.serving import EngineServing, Serving, serving_of
from yoloserve.images.letterbox import Image, InputSize
from yoloserve.model.metadata import Metadata
from yoloserve.scheduling.concurrency import Threads
from yoloserve.settings import BackendName, PrecisionName, Settings
from yoloserve.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
NAMES = ("circle", "square", "star")
INPUT = InputSize(64, 64)
HOUR_MS = 3_600_000
"""A deadline by which nobody is late, nor is taken for late, on a machine that stands still."""
# What the fake and the small models see, whatever they look at: a circle and a star, and below
# the default threshold a square. Columns of (cx, cy, w, h, *scores).
SEEN = np.array(
    [
        [32.0, 32.0, 20.0, 10.0, 0.9, 0.1, 0.0],
        [12.0, 40.0, 8.0, 8.0, 0.0, 0.0, 0.6],
        [50.0, 50.0, 6.0, 6.0, 0.0, 0.2, 0.0],
    ],
    np.float32,
).T


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; what it logs is kept for the test."""
    from selenium import webdriver  # here: few tests need one

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})

    class Patient(webdriver.ChromeService):
        """Waits for its program to begin for longer than half a minute, while that runs."""

        begun = False

        def is_connectable(self) -> bool:
            until = time.monotonic() + 180
            while not (there := super().is_connectable()) and not self.begun:
                self.assert_process_still_running()
                if time.monotonic() > until:
                    break
                time.sleep(0.1)
            self.begun |= there
            return there

    # Its own choice would be a port that was found free and closed again.
    (port,) = ports.reserve(1)
    service = Patient(executable_path=shutil.which("chromedriver"), port=port)
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(scope="session", autouse=True)
def documents_are_made_once() -> Iterator[None]:
    """Remember `/openapi.json`: it takes a fifth of a second, in each test that makes an app."""
    made: dict[tuple[str, str], str] = {}
    make = applications.get_openapi

    def remembered(**told: Any) -> dict[str, Any]:
        key = told["version"], told["description"]
        if key not in made:
            made[key] = json.dumps(make(**told))
        return json.loads(made[key])  # one's own: the application adds to it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applications, "get_openapi", remembered)
        yield


BRIGHT = 0.04  # what a small model's small scores rise by from black to white


@pytest.fixture
def picture() -> Image:
    """A 160 x 90 picture in four flat colours, so that any turn of it can be told."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[:45, :80] = (255, 0, 0)
    image[:45, 80:] = (0, 255, 0)
    image[45:, :80] = (0, 0, 255)
    image[45:, 80:] = (200, 200, 0)
    return image


@pytest.fixture
def jpeg(picture: Image) -> bytes:
    return cv2.imencode(".jpg", picture)[1].tobytes()


@pytest.fixture
def begin() -> Callable[[HTTPConnection, bytes], None]:
    """Send a request to detect, all but what is after its first hundred bytes."""

    def begin(client: HTTPConnection, picture: bytes) -> None:
        client.putrequest("POST", "/v1/detect")
        client.putheader("Content-Length", str(len(picture)))
        client.endheaders(picture[:100])

    return begin


@dataclass
class Clock:
    """A clock that moves when told to."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class FakeBackend:
    """A network that sees the same in every tensor, once it is allowed to."""

    output: NDArray[np.float32] = field(default_factory=lambda: SEEN)
    device: str = "cpu"
    precision: PrecisionName = PrecisionName.FP32
    metadata: Metadata = field(default_factory=lambda: Metadata(names=NAMES))
    input_size: InputSize = INPUT
    lanes: int = 1
    max_batch: int = 1
    fails: Exception | None = None
    may_run: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def __post_init__(self) -> None:
        self.may_run.set()

    def infer(self, _lane: int, tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        self.started.set()
        assert self.may_run.wait(60)
        if self.fails:
            raise self.fails
        return np.stack([self.output] * len(tensors))


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@dataclass
class Served:
    """An application in this process, and what is behind it."""

    client: httpx.AsyncClient
    app: Any  # that is asked
    asked: Serving  # of it
    serving: EngineServing
    core: EngineCore
    detector: Detector  # of the application
    backend: FakeBackend

    async def detect(self, body: bytes, query: str = "", **headers: str) -> httpx.Response:
        return await self.client.post(f"/v1/detect{query}", content=body, headers=headers)


Serve = Callable[..., Any]


BY_A_FRONT = frozenset(
    {
        "test_access",
        "test_app",
        "test_compression",
        "test_counting",
        "test_cors",
        "test_detecting_several",
        "test_disagreements",
        "test_negotiation",
        "test_request_start",
        "test_shadow",
        "test_stream",
        "test_v2",
    }
)
"""Whose promises are tried by a front as well."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if "serve" in metafunc.fixturenames and module in BY_A_FRONT:
        metafunc.parametrize("serve", ["alone", "front"], indirect=True)


@pytest.fixture
def serve(backend: FakeBackend, request: pytest.FixtureRequest) -> Serve:
    """Serve the fake backend, or `engine`: `async with serve(max_pixels=100) as served`.

    What depends on how much time has passed is asked with a `clock` that moves when told to.
    """
    by_a_front = getattr(request, "param", "alone") == "front"

    @asynccontextmanager
    async def serve(
        clock: Callable[[], float] = time.perf_counter,
        engine: Engine | None = None,
        **changes: Any,
    ) -> AsyncIterator[Served]:
        settings = Settings(revision="gate-1234", probe_interval_seconds=0).model_copy(
            update={"deadline_ms": HOUR_MS} | changes
        )
        info = ModelInfo(
            name="gate",
            version="1",
            sha256="0" * 64,
            revision=settings.revision,
            classes=NAMES,
            backend=BackendName.ONNXRUNTIME,
            precision=PrecisionName.FP32,
            device="cpu",
            input_size=backend.input_size,
        )
        metrics = Metrics()
        engine = engine or Engine(backend, info, Head.ANCHOR_FREE)
        core = EngineCore(
            engine,
            Threads(pool=2, lanes=engine.lanes),
            max_pixels=settings.max_pixels,
            deadline_s=settings.deadline_ms / 1000,
            clock=clock,
            on_batch=metrics.batch_ran,
        )
        serving = EngineServing.of(core, metrics, settings)
        app = create_app(serving)
        async with app.router.lifespan_context(app), AsyncExitStack() as stack:
            if by_a_front:
                app = (await stack.enter_async_context(front_of(app, clock))).app
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://test")
            await stack.enter_async_context(client)
            asked = serving_of(app)
            yield Served(client, app, asked, serving, core, asked.detector, backend)

    return serve


class Camera:
    """The other end of an ASGI WebSocket."""

    def __init__(self, served: Any, **headers: str) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        told = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/v1/stream", "query_string": b"", "headers": told}
        self.task = asyncio.create_task(served.app(scope, self._in.get, self._take))
        self.push(type="websocket.connect")

    async def closing(self) -> None:
        """Hold up whoever closes, as a connection does that is busy."""

    async def _take(self, message: dict[str, Any]) -> None:
        await self._out.put(message)
        if message["type"] == "websocket.close":
            await self.closing()

    def push(self, **message: Any) -> None:
        self._in.put_nowait(message)

    def send(self, frame: bytes) -> None:
        self.push(type="websocket.receive", bytes=frame)

    async def receive(self) -> dict[str, Any]:
        while (message := await self._out.get())["type"] != "websocket.send":
            assert message["type"] == "websocket.accept"
        return json.loads(message["text"])

    async def end(self) -> tuple[int, str]:
        """Wait until the server closes it; says with what code and why."""
        while (message := await self._out.get())["type"] != "websocket.close":
            pass
        self.push(type="websocket.disconnect", code=message["code"])
        await self.task
        return message["code"], message["reason"]

    async def leave(self) -> None:
        self.push(type="websocket.disconnect", code=1000)
        await self.task


@pytest.fixture
def stream_to() -> Callable[..., Camera]:
    """Open a stream without a socket: `stream_to(served, origin="https://...")`."""
    return Camera


def onnx_model(
    output: NDArray[np.float32] = SEEN,
    *,
    size: int | None = 64,
    batch: int | None = 1,
    names: tuple[str, ...] | None = NAMES,
    half: bool = False,
    bright: float = BRIGHT,
    told: Mapping[str, str] | None = None,
    **metadata: str,
) -> bytes:
    """Make a model that sees the same in every tensor; None is a free dimension.

    Not wholly the same, or it would be blind: small scores rise a little with the brightness, and
    are those of `output` in the dark. Metadata by keyword, or in `told` what has a name that is
    taken.
    """
    rises = np.where((output > 0) & (output < 0.25), bright, 0)
    kind, number = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    shape = [batch or "batch", 3, size or "height", size or "width"]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "rises"], ["more"]),
        helper.make_node("Add", ["seen", "more"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sees",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("output0", kind, None)],
        [
            numpy_helper.from_array(output[None].astype(number), "seen"),
            numpy_helper.from_array(rises[None].astype(number), "rises"),
            numpy_helper.from_array(np.array([3]), "last"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="tests"
    )
    usual = {"stride": "32", "imgsz": "[64, 64]", "task": "detect", "version": "1.2"}
    all_told = {**usual, **metadata, **(told or {})}
    if names is not None:
        all_told["names"] = str(dict(enumerate(names)))
    helper.set_model_props(model, all_told)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Write a small ONNX model; return its address."""

    def make(**options: Any) -> str:
        path = tmp_path_factory.mktemp("model") / "gate.onnx"
        path.write_bytes(onnx_model(**options))
        return path.as_uri()

    return make


@pytest.fixture
def nobodys_port() -> Iterator[int]:
    """A port on which nobody listens, nor can while the test runs."""
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        yield ours.getsockname()[1]


class Forked:
    """A process that the zygote forked, with what `subprocess.Popen` has of methods."""

    def __init__(self, asked: socket.socket, **told: Any) -> None:
        stderr, its_stderr = os.pipe()
        status, its_status = os.pipe()
        socket.send_fds(asked, [json.dumps(told).encode()], [its_stderr, its_status])
        os.close(its_stderr)
        os.close(its_status)
        self.stderr = os.fdopen(stderr)
        self._status = os.fdopen(
            status, "rb", buffering=0
        )  # what is not read yet is seen by select
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._status.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, self.stderr.read()

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)

    def abandon(self) -> None:
        """Leave it as tests do that are killed; nothing more is heard of it than its stderr."""
        self._status.close()
        self.returncode = -signal.SIGKILL

    def close(self) -> None:
        self.stderr.close()
        self._status.close()


@dataclass
class Process:
    """A server process; its log is read line by line, so that nothing needs to sleep."""

    process: Forked
    termination_log: Path
    url: str = ""

    def logged(self, message: str) -> dict[str, Any]:
        """Wait for a line of the log."""
        for line in self.process.stderr:
            if line.startswith("{") and (told := json.loads(line))["message"] == message:
                return told
        raise AssertionError(f"the server ended before it said {message!r}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


SOURCES = f"{ROOT / 'serving_image'}{os.pathsep}{ROOT / 'dev'}"
IMPORTED = (
    "yoloserve.__main__",
    "yoloserve.http.app",
    "yoloserve.http.server",
    "yoloserve.engine.backends.openvino",
)


@pytest.fixture(scope="session")
def zygote() -> Iterator[socket.socket]:
    """What `zygote.py` listens to: it has imported the server, and forks."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with its:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("zygote.py"), *IMPORTED],
                env=os.environ | {"PYTHONPATH": SOURCES},
                stdin=its.fileno(),
            )
        yield ours
    process.wait()


@pytest.fixture(scope="module")
def run_server(
    zygote: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Process]]:
    """Start `yoloserve serve` with these settings, in a process of its own.

    It is forked, which takes a fifth of a start; `anew` runs an interpreter, as users do.
    Answers have a minute, and requests to arrive: on a busy machine either may take longer than
    the other side would wait for.
    """
    started: list[Process] = []

    def run(program: str = "yoloserve", *, anew: bool = False, **settings: Any) -> Process:
        folder = tmp_path_factory.mktemp("server")
        termination_log = folder / "termination-log"
        options = {
            "port": 0,
            "cache_dir": folder / "cache",
            "termination_log": termination_log,
            "deadline_ms": 60_000,
            "body_timeout_seconds": 60,
        }
        told = {f"YOLOSERVE_{k.upper()}": str(v) for k, v in (options | settings).items()}
        environment = os.environ | told | {"PYTHONPATH": SOURCES}
        process = Forked(zygote, module=program, anew=anew, environment=environment)
        server = Process(process, termination_log)
        started.append(server)
        return server

    yield run
    for server in started:
        server.process.kill()
        server.process.communicate()
        server.process.close()
