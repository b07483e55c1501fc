"""Converts a model for a runtime, and refuses the result unless it sees what its source sees."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isnan
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory

from yoloserve.detections.postprocess import Detections
from yoloserve.engine import converted
from yoloserve.engine.starting import Engine, installed, start, tuning_of
from yoloserve.errors import BadImage, InvalidSettings, ParityFailed
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Image, InputSize, letterbox
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
        if not self.agreement.both or (self.maps and isnan(sum(self.maps))):
            raise ParityFailed(
                f"the pictures do not tell what {precision} costs: {self}; give some with objects "
                "that the model finds, and if there are labels, labels of those"
            )


def convert(
    settings: Settings, data: Path, into: Path | None, look: Look
) -> tuple[Path | str, str]:
    """Convert the model, compare, and keep it; return where it is, and the numbers.

    data: pictures, with labels if possible; every other one calibrates, the others compare. What
    was kept before is replaced: it may have been made by other pictures. Raises `ParityFailed`, in
    which case nothing is kept.
    """
    if settings.precision not in TARGETS:
        raise InvalidSettings(f"precision: say which to convert to, one of {', '.join(TARGETS)}")
    backend = _runtime(settings.backend)
    exact = {"precision": PrecisionName.FP32, "backend": SOURCES[backend]}
    source = start(settings.model_copy(update=exact))
    pictures = dataset.read(data, source.info.classes)
    place = None
    try:
        folder = converted.folder_of(settings)
        folder.mkdir(exist_ok=True)
        if converted.is_kept(backend, settings.precision):
            tuning = tuning_of(settings, settings.precision)
            place = converted.place_of(settings, backend, source.info.sha256, tuning)
        with TemporaryDirectory(dir=folder, prefix=".part-") as part:
            made = Path(part) / "model"
            made.mkdir()
            _write(settings, backend, source, pictures[::2], made)
            result = start(settings.model_copy(update=_served(settings, backend, made)))
            parity = compared(source, result, pictures[1::2] or pictures, look)
            parity.require(settings.precision)
            (made / PARITY_FILE).write_text(f"{parity}\n")
            if place:
                converted.keep(place, made)
            if into:
                _copy(made, into)
    except OSError as error:
        where = error.filename or settings.cache_dir
        raise InvalidSettings(f"cannot write to {where}: {error.strerror}") from error
    return into or place or f"{settings.precision}: compared only, --into keeps it", str(parity)


def _copy(made: Path, into: Path) -> None:
    """Copy a conversion whole or not at all; raise `InvalidSettings` where there is no room."""
    try:
        with TemporaryDirectory(dir=into, prefix=".part-") as part:
            copies = [Path(part) / path.name for path in made.iterdir()]
            for copied in copies:
                shutil.copyfile(made / copied.name, copied)
            for copied in copies:
                copied.replace(into / copied.name)
    except OSError as error:
        raise InvalidSettings(f"cannot write to {into}: {error.strerror}") from error


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
    tensors = [_tensor(each, source.input_size, settings.max_pixels) for each in calibrating]
    told = write_ir(parts, settings.precision, tensors, made / "model.xml")
    # Only what the source says of itself: settings mean the same for both when they are served.
    facts = {**(parts.metadata or told), "converted_from": source.info.sha256}
    (made / METADATA_FILE).write_text(json.dumps(facts, indent=1, default=str))  # which is YAML


def _tensor(picture: Labelled, size: InputSize, max_pixels: int) -> Image:
    try:
        return letterbox(decode(picture.encoded(), max_pixels=max_pixels), size)[0]
    except BadImage as error:
        raise InvalidSettings(f"{picture.path}: {error}") from error


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
