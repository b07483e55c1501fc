"""An engine that waits where a network would compute."""

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from stub_engine.behaviour import Source, Stub
from yoloserve.detections.postprocess import Head
from yoloserve.engine.backends.base import Outputs, Tensors
from yoloserve.engine.starting import Engine, ModelInfo, installed
from yoloserve.images.letterbox import InputSize
from yoloserve.model.formats import Format
from yoloserve.model.metadata import DEFAULT_IMAGE_SIZE, Metadata
from yoloserve.model.weights import fetch
from yoloserve.settings import PrecisionName, Settings

CLASSES = ("circle", "square", "star")  # of the bundled models
SCORE = 0.9
WARM_UP_RUNS = 2  # as `yoloserve.core` has; a server that is measured may be older than that
STRIDES = 8, 16, 32  # of YOLOv8's places


class StubFailure(Exception):
    """What a runtime would raise."""


class StubBackend:
    """Takes its time for each call, fails as often as it is told to, and sees one object."""

    device = "stub"
    metadata = Metadata(names=CLASSES)

    def __init__(
        self,
        source: Source,
        stub: Stub,
        size: InputSize,
        sleep: Callable[[float], None],
        *,
        precision: PrecisionName = PrecisionName.FP32,
        classes: int = len(CLASSES),
    ) -> None:
        self.precision = precision
        # Made once for each size: what a network would compute is to cost nothing.
        self._output = lru_cache(partial(_places, stub.candidates, classes))
        self.lanes, self.max_batch = stub.lanes, stub.max_batch
        self.input_size = size
        self._source = source
        self._sleep = sleep
        self._spared = WARM_UP_RUNS * stub.lanes * len({1, stub.max_batch})
        self._calls = 0
        self._counting = threading.Lock()  # lanes are threads

    def infer(self, _lane: int, tensors: Tensors) -> Outputs:
        """Wait as long as this batch takes; a call that fails takes its time as well."""
        images, height, width, _ = tensors.shape
        told = self._source.now
        fails = self._fails(told.failures)
        self._sleep(told.seconds(images, images * height * width))
        if fails:
            raise StubFailure("a failure that was asked for")
        seen = self._output(height, width)
        return np.broadcast_to(seen, (images, *seen.shape))

    def _fails(self, share: float) -> bool:
        """Spread failures evenly: of any n calls, `share * n` fail, up to one."""
        with self._counting:
            self._calls += 1
            number = self._calls - self._spared
        return number > 0 and int(number * share) > int((number - 1) * share)


def _places(candidates: int, classes: int, height: int, width: int) -> Outputs:
    """Write down one object, as one row of a graph that suppresses, or as YOLOv8's head does."""
    if not candidates:
        box = width / 4, height / 4, width * 3 / 4, height * 3 / 4
        return np.array([[*box, SCORE, 0]], np.float32)
    places = sum((height // stride) * (width // stride) for stride in STRIDES)
    output = np.zeros((4 + classes, max(places, candidates)), np.float32)
    output[:4] = [[width / 2], [height / 2], [width / 2], [height / 2]]
    output[4, :candidates] = np.linspace(SCORE, SCORE / 2, candidates)
    return output


def start(settings: Settings, sleep: Callable[[float], None] = time.sleep) -> Engine:
    """Make the stub for what the settings ask for: the model is fetched and checked, not loaded."""
    runtime = installed(settings.backend)[0]  # so that it is told as the server would
    model = fetch(settings, preferred=Format.ONNX)
    side = settings.image_size or DEFAULT_IMAGE_SIZE
    source, stub = Source(os.environ), Stub.read(os.environ)
    classes = settings.classes or CLASSES
    wanted = settings.precision
    backend = StubBackend(
        source,
        stub,
        InputSize(side, side, dynamic=True),
        sleep,
        precision=PrecisionName.FP32 if wanted is PrecisionName.AUTO else wanted,
        classes=len(classes),
    )
    info = ModelInfo(
        name=settings.name or model.stem,
        version=settings.version or model.stem,
        sha256=model.sha256,
        revision=settings.revision,
        classes=classes,
        backend=runtime,
        precision=backend.precision,
        device=backend.device,
        input_size=backend.input_size,
    )
    return Engine(backend, info, Head.ANCHOR_FREE if stub.candidates else Head.END_TO_END)
