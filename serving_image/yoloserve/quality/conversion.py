"""Converts a model for a runtime, and refuses the result unless it sees what its source sees."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory

from yoloserve.detections.postprocess import Detections, Head
from yoloserve.engine import converted
from yoloserve.engine.starting import Engine, installed, start, tuning_of
from yoloserve.errors import InvalidSettings, ParityFailed
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import letterbox
from yoloserve.model.formats import METADATA_FILE, Format
from yoloserve.model.weights import fetch
from yoloserve.quality import dataset
from yoloserve.quality.agreement import MARGIN, Agreement, agreement
from yoloserve.quality.dataset import Labelled
from yoloserve.quality.evaluation import Evaluation
from yoloserve.settings import BackendName, PrecisionName, Settings

CONFIDENCE = 0.25
MOST_CALIBRATING = 300  # pictures; NNCF's own default, beyond which ranges hardly move
PARITY_FILE = "parity.txt"
SOURCES = {  # what each conversion is held to: the exact model, in a runtime of the same image
    BackendName.OPENVINO: BackendName.OPENVINO,
    BackendName.TENSORRT: BackendName.ONNXRUNTIME,
}
Look = Callable[[Engine, Sequence[Labelled]], Evaluation]


@dataclass(frozen=True, slots=True)
class Target:
    """A precision to convert to: what CPUs compute the result in, and what it may cost."""

    on_cpu: PrecisionName
    least_f1: float  # of its objects against those of the source
    most_map_loss: float  # in points, where objects are known


TARGETS = {
    PrecisionName.FP32: Target(PrecisionName.FP32, 0.99, 0.1),
    PrecisionName.FP16: Target(PrecisionName.FP32, 0.98, 0.2),  # only the weights
    PrecisionName.BF16: Target(PrecisionName.BF16, 0.95, 0.2),
    PrecisionName.INT8: Target(PrecisionName.INT8, 0.85, 1.0),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How a conversion compares with its source, in pictures it was not calibrated by."""

    agreement: Agreement
    maps: tuple[float, float] | None = None  # mAP50-95 in points, source and result; with labels

    def __str__(self) -> str:
        """Tell the numbers in a line."""
        if self.maps is None:
            return str(self.agreement)
        return f"{self.agreement}; mAP50-95 {self.maps[0]:.2f} -> {self.maps[1]:.2f}"

    def require(self, precision: PrecisionName) -> None:
        """Raise `ParityFailed` with the numbers if this is not good enough."""
        target = TARGETS[precision]
        if self.agreement.f1 < target.least_f1:
            raise ParityFailed(
                f"in {precision} the model does not see what it saw: {self}; the F1 must be at "
                f"least {target.least_f1}"
            )
        if self.maps and (loss := self.maps[0] - self.maps[1]) > target.most_map_loss:
            raise ParityFailed(
                f"in {precision} the model loses {loss:.2f} points of mAP, more than "
                f"{target.most_map_loss}: {self}"
            )


def convert(settings: Settings, data: Path, into: Path | None, look: Look) -> tuple[Path, str]:
    """Convert the model, compare, and keep it; return where it is, and the numbers.

    data: pictures, with labels if possible; every other one calibrates, the others compare. Raises
    `ParityFailed`, in which case nothing is kept.
    """
    if settings.precision not in TARGETS:
        raise InvalidSettings(f"precision: say which to convert to, one of {', '.join(TARGETS)}")
    backend = _runtime(settings.backend)
    exact = {"precision": PrecisionName.FP32, "backend": SOURCES[backend]}
    source = start(settings.model_copy(update=exact))
    tuning = tuning_of(settings, settings.precision)
    try:
        place = converted.place_of(settings, backend, source.info.sha256, tuning)
    except OSError as error:
        raise InvalidSettings(f"cannot write to {settings.cache_dir}: {error.strerror}") from error
    if not place.is_dir():
        try:
            place.parent.mkdir(exist_ok=True)
            # It appears under its name whole or not at all, however the process ends.
            with TemporaryDirectory(dir=place.parent, prefix=".part-") as folder:
                made = Path(folder) / source.info.name
                made.mkdir()
                pictures = dataset.read(data, source.info.classes)
                _write(settings, backend, source, pictures[::2], made)
                result = start(settings.model_copy(update=_served(settings, backend, made)))
                parity = compared(source, result, pictures[1::2] or pictures, look)
                parity.require(settings.precision)
                (made / PARITY_FILE).write_text(f"{parity}\n")
                made.replace(place)
        except OSError as error:
            raise InvalidSettings(f"cannot write to {place.parent}: {error.strerror}") from error
    if into:
        shutil.copytree(place, into, dirs_exist_ok=True)
    return into or place, (place / PARITY_FILE).read_text().strip()


def _runtime(wanted: BackendName) -> BackendName:
    """Choose what to convert to: what is asked for, else the first that is installed."""
    if wanted is BackendName.AUTO:
        return next(name for name in installed(wanted) if name in converted.RUNTIMES)
    if wanted not in converted.RUNTIMES:
        raise InvalidSettings(f"backend: models are converted to {', '.join(converted.RUNTIMES)}")
    return wanted


def _served(settings: Settings, backend: BackendName, made: Path) -> dict[str, object]:
    """Return the settings under which a conversion is served."""
    on_cpu = backend is BackendName.OPENVINO
    return {
        "model": made.as_uri(),
        "sha256": None,
        "backend": backend,
        "precision": TARGETS[settings.precision].on_cpu if on_cpu else settings.precision,
        "allow_engine": True,
    }


def _write(
    settings: Settings,
    backend: BackendName,
    source: Engine,
    pictures: Sequence[Labelled],
    made: Path,
) -> None:
    """Write the converted model to the folder `made`; each runtime is here only where needed."""
    parts = fetch(settings, Format.ONNX).parts
    if backend is BackendName.TENSORRT:
        from yoloserve.engine.backends.tensorrt import compile_onnx

        content = compile_onnx(parts, tuning_of(settings, settings.precision))
        (made / converted.ENGINE).write_bytes(content)
        return
    from yoloserve.engine.backends.openvino_convert import write_ir

    calibrating = pictures[:MOST_CALIBRATING] if settings.precision is PrecisionName.INT8 else []
    tensors = [
        letterbox(decode(each.path.read_bytes(), max_pixels=settings.max_pixels), source.input_size)
        for each in calibrating
    ]
    write_ir(parts, settings.precision, [tensor for tensor, _ in tensors], made / "model.xml")
    (made / METADATA_FILE).write_text(_facts(source))


def _facts(source: Engine) -> str:
    """Say what the public exporter writes beside a graph; JSON is YAML."""
    size, info = source.input_size, source.info
    facts = {
        "names": dict(enumerate(info.classes)),
        "imgsz": [size.height, size.width],
        "stride": size.stride,
        "task": "detect",
        "version": info.version,
        "end2end": source.head is Head.END_TO_END,
        "converted_from": info.sha256,
    }
    return json.dumps(facts, indent=1) + "\n"


def compared(source: Engine, result: Engine, pictures: Sequence[Labelled], look: Look) -> Parity:
    """Let both look at the same pictures."""
    expected, found = look(source, pictures), look(result, pictures)
    total = reduce(
        add,
        (
            agreement(_sure(theirs), _sure(ours), confidence=CONFIDENCE)
            for theirs, ours in zip(found.found, expected.found, strict=True)
        ),
    )
    if any(each.classes is None for each in pictures):
        return Parity(total)
    return Parity(total, (100 * expected.scores.map50_95, 100 * found.scores.map50_95))


def _sure(found: Detections) -> Detections:
    return found[found.scores > CONFIDENCE - MARGIN]
