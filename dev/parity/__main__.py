"""Compare with the public YOLO package: `record` its answers as fixtures, or `check` families.

python3 -m venv /tmp/parity
/tmp/parity/bin/pip install -r dev/parity/requirements.txt '.[server,openvino,onnxruntime,torch]'
PYTHONPATH=serving_image:dev /tmp/parity/bin/python -m parity check
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from parity import reference
from yoloserve.agreement import MARGIN, Agreement, agreement
from yoloserve.engine import Engine, start
from yoloserve.images import decode, letterbox
from yoloserve.postprocess import Detections, Options, postprocess
from yoloserve.settings import BackendName, PrecisionName, Settings

ROOT = Path(__file__).parents[2]
PICTURES = sorted((ROOT / "examples" / "images").glob("*.jpg"))
MODELS = ROOT / "serving_image" / "yoloserve" / "models"
RECORDED = ROOT / "tests" / "serving" / "reference.json"
CONFIDENCE = 0.25
OPTIONS = Options(confidence=CONFIDENCE - MARGIN, iou=0.7, max_detections=1000)
FAMILIES = (
    *("yolov5nu", "yolov5s", "yolov8n", "yolov8s", "yolov9t", "yolov10n", "yolov10s"),
    *("yolo11n", "yolo11s", "yolo12n", "yolo26n", "yolo26s"),
)
LEAST_IOU, MOST_SCORE = 0.99, 0.01


@dataclass(frozen=True, slots=True)
class Case:
    """One exported file, and a runtime to run it on."""

    family: str
    form: str  # how it was exported
    path: Path
    backend: BackendName


def main() -> int:
    """Run one command; the exit code says whether all agree."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("parity", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record", help="write the reference's answers for the bundled models")
    check = commands.add_parser("check", help="compare on random weights of these families")
    check.add_argument("families", nargs="*", default=FAMILIES)
    check.add_argument("--size", type=int, default=640)
    options = parser.parse_args()
    if options.command == "record":
        RECORDED.write_text(json.dumps(recorded(), indent=1) + "\n")
        return 0
    return compare(options.families, options.size)


def recorded() -> dict[str, object]:
    """Ask the reference for every picture of the repository, on the bundled models."""
    pictures = [*PICTURES, MODELS / "probe.jpg"]
    answers = {
        model: {
            str(picture.relative_to(ROOT)): [
                [*(round(edge, 3) for edge in box), round(score, 5), kind]
                for box, score, kind in zip(
                    found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
                )
            ]
            for picture in pictures
            for found in [reference.detections(MODELS / f"{model}.onnx", picture, OPTIONS)]
        }
        for model in ("shapes", "shapes-v2")
    }
    return {"package": reference.VERSION, "confidence": OPTIONS.confidence, "answers": answers}


def compare(families: list[str], size: int) -> int:
    """Print a row for each family, format and runtime."""
    bad = 0
    print("| family | exported as | runtime | objects | missing | extra | IoU ≥ | score ± |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for family in families:
            for case in cases(family, size, Path(folder)):
                total = agreed(case, Path(folder))
                good = not (total.missing or total.extra)
                good &= total.worst_iou >= LEAST_IOU and total.worst_score <= MOST_SCORE
                bad += not good
                print(
                    f"| {case.family} | {case.form} | {case.backend} | {total.both} "
                    f"| {total.missing} | {total.extra} | {total.worst_iou:.4f} "
                    f"| {total.worst_score:.4f} |{'' if good else ' **differs**'}",
                    flush=True,
                )
    print(f"{bad} differ" if bad else "all agree")
    return min(bad, 1)


def cases(family: str, size: int, folder: Path) -> Iterator[Case]:
    """Export one network in every way, and name the runtimes for each."""
    for form, path in reference.exported(family, size, folder, PICTURES):
        if "torchscript" in form:
            yield Case(family, form, path, BackendName.TORCH)
            continue
        yield Case(family, form, path, BackendName.OPENVINO)
        if "onnx" in form:
            yield Case(family, form, path, BackendName.ONNXRUNTIME)


def agreed(case: Case, folder: Path) -> Agreement:
    """Compare on every picture."""
    engine = start(
        Settings.read(
            model=case.path.as_uri(),
            backend=case.backend,
            precision=PrecisionName.FP32,
            cache_dir=folder / "cache",
        )
    )
    pictures = [*PICTURES, *reference.pictures()]
    return reduce(
        add,
        (
            agreement(
                found(engine, picture),
                reference.detections(case.path, picture, OPTIONS),
                confidence=CONFIDENCE,
            )
            for picture in pictures
        ),
    )


def found(engine: Engine, picture: Path) -> Detections:
    """Ask this server's engine, by the path that requests take."""
    image = decode(picture.read_bytes(), max_pixels=10**9)
    tensor, fit = letterbox(image, engine.input_size)
    (output,) = engine.infer(0, [tensor])
    return postprocess(output, engine.head, fit, OPTIONS)


if __name__ == "__main__":
    sys.exit(main())
