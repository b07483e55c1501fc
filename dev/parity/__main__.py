"""Compare with the public YOLO package, and say what each precision costs: `make parity`.

  check      the boxes of every family, in every format, on every runtime, are the package's
  precision  mAP on the demo's held-back pictures: bf16, int8, JPEGs decoded at half their size
  record     write the package's answers that the tests hold this server to

All run in an environment of their own, which the first run makes under ~/.cache/yolofleet/parity.
"""

import argparse
import json
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from parity import environment

WHOLE = "yolov8n", "yolo26n"  # in every format; these are trained as well
OTHERS = "yolov5n", "yolov9t", "yolov10n", "yolo11n", "yolo12n"
LARGER = "yolov8s", "yolo11s"  # in the format that is served most
THIN = "900x60", "60x900"
TRAINED_SIDE, TRAINED_ON, EPOCHS = 192, 600, 8


def main() -> int:
    """Run one command; the exit code says whether all agree."""
    options = _options()
    if not find_spec("ultralytics"):
        return environment.run(sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.command == "record":
            from parity import record

            return record.write(folder)
        if options.command == "precision":
            from parity import precision

            return precision.measure(folder, options.models, options.pictures)
        return _check(folder, options)


def _options() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("parity", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="compare boxes")
    families = [*WHOLE, *OTHERS, *LARGER, *(f"{family}:trained" for family in WHOLE)]
    check.add_argument(
        "families", nargs="*", default=families, help="yolov8n, or yolov8n:trained (all)"
    )
    check.add_argument("--size", type=int, default=320)
    check.add_argument("--exported", action="append", help='only "ONNX, free size", say (several)')
    check.add_argument("--json", type=Path, help="also write what came out to this file")
    precision = commands.add_parser("precision", help="compare mAP")
    precision.add_argument("models", nargs="*", default=["demo://shapes", "demo://shapes-v2"])
    precision.add_argument("--pictures", type=int, default=1000)
    commands.add_parser("record", help="write fixtures")
    return parser.parse_args()


def _check(folder: Path, options: argparse.Namespace) -> int:
    """Print a row for each family, format and runtime, and each difference."""
    converter = import_module("openvino.tools.ovc")
    from parity import pictures, reference
    from parity.compare import HEADING, OPTIONS, Compared, compared, line, running
    from yoloserve.settings import BackendName

    sys.modules[converter.__name__] = converter  # the server leaves it out, and exporting needs it
    shown = [*pictures.EXAMPLES, *reference.pictures(), *pictures.hard_to_fit(folder / "sizes")]
    total, bad, told = Compared(), 0, []
    print(HEADING, flush=True)
    size: int = options.size
    for name in options.families:
        family, _, weights = name.partition(":")
        if weights:
            model = reference.trained(_checkpoint(family), shown, size)
        else:
            model = reference.awake(family, size, shown)
        chosen = [
            form
            for form in options.exported or reference.FORMATS
            if options.exported or _wanted(family, bool(weights), form)
        ]
        for form, path in reference.exported(model, family, chosen, size, folder):
            # The least of them have fewer places than the 300 that such a graph chooses from.
            looked_at = [p for p in shown if "end to end" not in form or p.stem not in THIN]
            expected = {
                picture: reference.ask(path, picture, OPTIONS, size) for picture in looked_at
            }
            for runtime in _runtimes(form):
                case = (family, weights or "random", form, runtime)
                each = compared(running(path, BackendName(runtime), folder / "cache"), expected)
                print(line(case, each), flush=True)
                for difference in (*each.ties, *each.unexplained):
                    print(f"    {difference}", file=sys.stderr, flush=True)
                told.append({"case": case, "row": line(case, each), "ties": each.ties})
                total, bad = total + each, bad + (not each.good)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    print(f"\n{len(told)} comparisons, {bad} differ; {total.boxes}; {len(total.ties)} ties")
    return min(bad, 1)


def _wanted(family: str, is_trained: bool, form: str) -> bool:
    """Choose the formats of a family; each export of a network takes a while."""
    from parity.reference import END_TO_END, FORMATS

    end_to_end = family.startswith(END_TO_END)
    if FORMATS[form].get("nms") is False and not end_to_end:
        return False
    if family in LARGER:
        return form == "ONNX, free size"
    if is_trained:
        return form in ("ONNX, free size", "ONNX, end to end", "OpenVINO, free size")
    return family in WHOLE or list(FORMATS).index(form) <= list(FORMATS).index("ONNX, end to end")


def _runtimes(form: str) -> list[str]:
    if form.startswith("TorchScript"):
        return ["torch"]
    return ["openvino"] if form.startswith("OpenVINO") else ["openvino", "onnxruntime"]


def _checkpoint(family: str) -> Path:
    """Train a family for some minutes on drawn pictures, once."""
    from parity import pictures, reference

    checkpoint = environment.folder() / f"{family}-{TRAINED_SIDE}-{TRAINED_ON}-{EPOCHS}.pt"
    if not checkpoint.exists():
        with tempfile.TemporaryDirectory() as name:
            data = pictures.training_set(Path(name), TRAINED_ON, TRAINED_SIDE)
            reference.train(family, data, checkpoint, side=TRAINED_SIDE, epochs=EPOCHS)
    return checkpoint


if __name__ == "__main__":
    sys.exit(main())
