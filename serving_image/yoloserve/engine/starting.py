"""From settings to an engine that is known to see: choose, load, check, probe."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import islice, zip_longest

import numpy as np

from yoloserve.detections.heads import recognise
from yoloserve.detections.postprocess import Detections, Head, Options, Output, iou, postprocess
from yoloserve.detections.surest import Surest
from yoloserve.engine import converted, sight
from yoloserve.engine.backends.base import Backend, BackendType, Picks, Tuning
from yoloserve.errors import (
    BackendUnsupported,
    BlindModel,
    ClassesDiffer,
    ModelUnsupported,
    StartupFailure,
)
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Image, InputSize, blank, letterbox
from yoloserve.model.formats import Format
from yoloserve.model.metadata import Metadata
from yoloserve.model.own import own_folder
from yoloserve.model.weights import BUNDLED, ModelFile, fetch
from yoloserve.scheduling.concurrency import available_cpus
from yoloserve.settings import BackendName, PrecisionName, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a backend is, and which package and files it needs."""

    backend: str  # class in the module of this package that has the runtime's name
    package: str
    reads: tuple[Format, ...]  # the bundled models come in the first
    image: str  # of ours, that has it


# The fastest first: `auto` takes the first that is installed and reads the file. TensorRT is the
# fastest on its GPUs, but compiles an ONNX file for minutes: it does that only when asked for.
RUNTIMES = {
    BackendName.OPENVINO: Runtime("OpenVino", "openvino", (Format.ONNX, Format.OPENVINO), "cpu"),
    BackendName.ONNXRUNTIME: Runtime("OnnxRuntime", "onnxruntime", (Format.ONNX,), "cpu"),
    BackendName.TORCH: Runtime("Torch", "torch", (Format.TORCHSCRIPT, Format.CHECKPOINT), "torch"),
    BackendName.TENSORRT: Runtime("TensorRt", "tensorrt", (Format.ONNX, Format.TENSORRT), "gpu"),
}
LOOKS_AT_HEAD = 2  # pictures whose numbers tell the head
PROBE_IOU = 0.5
PROBE = BUNDLED / "probe.jpg"
PROBE_OBJECTS = BUNDLED / "probe.json"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served, as answers, logs and metrics tell it."""

    name: str
    version: str
    sha256: str
    revision: str
    classes: tuple[str, ...]
    backend: BackendName
    precision: PrecisionName
    device: str
    input_size: InputSize


class Engine:
    """A loaded network: tensors in, one raw output for each."""

    def __init__(self, backend: Backend, info: ModelInfo, head: Head) -> None:
        self._backend = backend
        self.info = info
        self.head = head
        self.lanes = backend.lanes
        self.max_batch = backend.max_batch
        self.input_size = backend.input_size
        self._picks = backend if isinstance(backend, Picks) else None
        if self._picks:
            self._picks.suit(head)

    def look(self, lane: int, tensors: Sequence[Image]) -> Sequence[Output | Surest]:
        """Run one batch for what is seen in it: on a GPU, whole outputs stay there.

        What is fetched of them later is fetched on the lane's thread, before its next call.
        """
        picked = self._picks.surest(lane, tensors) if self._picks else None
        return self.infer(lane, tensors) if picked is None else picked

    def infer(self, lane: int, tensors: Sequence[Image]) -> list[Output]:
        """Run one batch on one lane; the tensors are of one shape."""
        stacked = tensors[0][None] if len(tensors) == 1 else np.stack(tensors)  # one is not copied
        return list(self._backend.infer(lane, stacked))


def start(settings: Settings) -> Engine:
    """Load what the settings ask for; raise a `StartupFailure` that says why it cannot be served.

    Returns only when the engine has seen what it should: ready means ready.
    """
    name, model, backend, looks = _loaded(settings)
    info = _described(settings, name, model, backend)
    if not all(np.isfinite(output).all() for output in looks.outputs):
        raise BlindModel("the model answers a picture with numbers that are not finite")
    head = recognise(
        looks.outputs,
        looks.shape,
        len(info.classes),
        end_to_end=backend.metadata.end_to_end,
        said=settings.head,
    )
    engine = Engine(backend, info, head)
    if model.bundled:
        probe(engine)
    else:
        _require_sight(looks, head, settings)
    return engine


def _loaded(settings: Settings) -> tuple[BackendName, ModelFile, Backend, _Looks]:
    """Have the runtime that suits the model load it, and look with it for the first time."""
    names = installed(settings.backend)
    model = fetch(settings, preferred=RUNTIMES[names[0]].reads[0])
    name = runtime_for(model.format, names)
    backend_type = _load_type(name)
    precision = choose_precision(settings.precision, backend_type.precisions(), name)
    tuning = tuning_of(settings, precision)
    if parts := converted.find(settings, name, model.sha256, tuning):
        model = replace(model, parts=parts)
    try:
        backend = backend_type(model, tuning)
        looks = _Looks(backend)
        looks.more(LOOKS_AT_HEAD)
    except StartupFailure:
        raise
    except Exception as error:  # each runtime has its own; told in the termination log
        raise ModelUnsupported(f"{name} cannot run the model: {error}") from error
    return name, model, backend, looks


def _described(
    settings: Settings, name: BackendName, model: ModelFile, backend: Backend
) -> ModelInfo:
    """Say what is served, and log what of the model's own words is odd."""
    metadata = backend.metadata
    for fault in metadata.faults:
        log.warning("entry of the model's metadata not read", extra={"reason": fault})
    classes = class_names(settings.classes, metadata)
    for oddity in oddities(metadata.names or settings.classes or ()):
        log.warning("odd class names", extra={"reason": oddity})
    return ModelInfo(
        name=settings.name or model.stem,
        version=settings.version or metadata.version or model.stem,
        sha256=model.sha256,
        revision=settings.revision,
        classes=classes,
        backend=name,
        precision=backend.precision,
        device=backend.device,
        input_size=backend.input_size,
    )


class _Looks:
    """A network's raw outputs for unlike pictures, as many as were asked for."""

    def __init__(self, backend: Backend) -> None:
        height, width = self.shape = blank(backend.input_size).shape[:2]
        self._backend = backend
        photo = decode(PROBE.read_bytes(), max_pixels=2**24)
        self._pictures = sight.pictures((height, width), photo)
        self.outputs: list[Output] = []

    def more(self, count: int) -> bool:
        """Look at up to so many more; return whether there were any."""
        before = len(self.outputs)
        for picture in islice(self._pictures, count):
            self.outputs.append(self._backend.infer(0, picture[None])[0])
        return len(self.outputs) > before


def _require_sight(looks: _Looks, head: Head, settings: Settings) -> None:
    """Raise `BlindModel` if the scores are the same whatever the picture."""
    while (seeing := sight.sees(looks.outputs, head)) is not True and looks.more(1):
        pass  # most need two pictures; what seems blind is shown the others as well
    if seeing:
        return
    if seeing is None:
        reason = "it finds nothing in our pictures, and its graph hides what it thought of them"
        log.warning("not known whether the model sees", extra={"reason": reason})
        return
    change = sight.widest_change(looks.outputs, head)
    reason = (
        f"its scores do not depend on the picture: for {len(looks.outputs)} unlike ones, grey "
        f"among them, they differ by {change:.2g} at most. The network wants RGB from 0 to 1 in "
        "floating point: does its graph divide by 255 as well, or were the weights lost in the "
        "export?"
    )
    if not settings.allow_blind:
        raise BlindModel(
            f"the model does not see: {reason} YOLOSERVE_ALLOW_BLIND=true (spec.model.allowBlind) "
            "serves it all the same"
        )
    log.warning("blind model served", extra={"reason": reason})


def installed(wanted: BackendName) -> list[BackendName]:
    """List the runtimes to choose from, the best first; raise `BackendUnsupported` if none."""
    asked = list(RUNTIMES) if wanted is BackendName.AUTO else [wanted]
    here = [name for name in asked if find_spec(RUNTIMES[name].package)]
    if not here:
        raise BackendUnsupported(
            f"backend {wanted}: {', '.join(asked)} not installed in this image; "
            f"use another backend, or the image `{RUNTIMES[asked[0]].image}`"
        )
    return here


def runtime_for(form: Format, names: Sequence[BackendName]) -> BackendName:
    """Take the first runtime that reads the file."""
    for name in names:
        if form in RUNTIMES[name].reads:
            return name
    reading = ", ".join(name for name, runtime in RUNTIMES.items() if form in runtime.reads)
    raise ModelUnsupported(
        f"the model is {form}, which {', '.join(names)} cannot run; it needs one of: {reading}"
    )


def choose_precision(
    wanted: PrecisionName, native: Sequence[PrecisionName], backend: BackendName
) -> PrecisionName:
    """Take the device's best, or what was asked for if the device computes it natively."""
    if wanted is PrecisionName.AUTO:
        return native[0]
    if wanted not in native:
        raise BackendUnsupported(
            f"precision {wanted}: {backend} on this device computes {', '.join(native)}"
        )
    return wanted


def class_names(expected: tuple[str, ...] | None, metadata: Metadata) -> tuple[str, ...]:
    """Agree on the class names; raise `ClassesDiffer` naming the first that differs.

    Blanks around a name are nobody's intent, and a class without a name gets one to be called by.
    """
    own = _called(metadata.names)
    if not own:
        if expected is None:
            fault = next((each for each in metadata.faults if each.startswith("names ")), "")
            raise ModelUnsupported(
                "the model's metadata names no classes: give them as `classes`"
                + (f" ({fault})" if fault else "")
            )
        return _called(expected)
    if expected is None or _called(expected) == own:
        return own
    for index, (want, have) in enumerate(zip_longest(_called(expected), own)):
        if want != have:
            raise ClassesDiffer(
                f"class {index} of the model is {have!r}, not {want!r}; "
                f"it has {len(own)} classes: {', '.join(own)}"
            )
    raise AssertionError("unequal tuples differ somewhere")


def _called(names: Sequence[str]) -> tuple[str, ...]:
    """Return what the classes are called here, as the public YOLO package calls nameless ones."""
    return tuple(name.strip() or f"class{index}" for index, name in enumerate(names))


def oddities(names: Sequence[str]) -> Iterator[str]:
    """Say which classes a caller cannot tell apart, or ask for, by the names that were given."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(_called(names)):
        indices.setdefault(name, []).append(index)
        if not names[index].strip():
            yield f"class {index} has no name, and is called {name!r} here"
    for name, each in indices.items():
        if len(each) > 1:
            yield (
                f"{name!r} names the classes {', '.join(map(str, each))}: a filter by this name "
                "means all of them, metrics count them together; only their indices differ"
            )
        if name.isdecimal() and int(name) < len(names) and int(name) not in each:
            yield f"class {each[0]} is called {name!r}: a filter by {name} means it, by its name"


def probe(engine: Engine) -> None:
    """Look at a picture with known objects; raise `BlindModel` unless all of them are found.

    Servers that answer 200 with no boxes are the known failure of this trade: only eyes tell.
    """
    tensor, fit = letterbox(decode(PROBE.read_bytes(), max_pixels=2**24), engine.input_size)
    options = Options(confidence=0.25, iou=0.7, max_detections=100)
    (output,) = engine.infer(0, [tensor])
    found = postprocess(output, engine.head, fit, options)
    missed = [
        known["name"]
        for known in json.loads(PROBE_OBJECTS.read_text())
        if not _sees(found, engine.info.classes.index(known["name"]), known["box"])
    ]
    if missed:
        raise BlindModel(f"the probe picture's {', '.join(missed)} was not found")


def _sees(found: Detections, class_index: int, box: dict[str, float]) -> bool:
    known = np.array([[box["x1"], box["y1"], box["x2"], box["y2"]]], np.float32)
    return bool((iou(found.boxes[found.classes == class_index], known) >= PROBE_IOU).any())


def _load_type(name: BackendName) -> BackendType:
    module = import_module(f"yoloserve.engine.backends.{name}")
    backend_type: BackendType = getattr(module, RUNTIMES[name].backend)
    return backend_type


def tuning_of(settings: Settings, precision: PrecisionName) -> Tuning:
    """Say how to run a network, by the settings."""
    return Tuning(
        precision=precision,
        profile=settings.profile,
        threads=settings.threads or available_cpus(),
        max_batch=settings.max_batch,
        image_size=settings.image_size,
        stride=settings.stride,
        cache_dir=_cache_dir(settings),
    )


def _cache_dir(settings: Settings) -> str:
    """Make the directory for compiled models; without one, each start compiles."""
    try:
        folder = own_folder(settings.cache_dir) / "compiled"
        folder.mkdir(exist_ok=True)
    except OSError as error:
        fields = {"folder": str(settings.cache_dir), "reason": error.strerror}
        log.warning("no cache for compiled models", extra=fields)
        return ""
    return str(folder)
