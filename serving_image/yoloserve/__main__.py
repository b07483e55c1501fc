"""`yoloserve serve | predict | evaluate | convert | bench`: parse, build, call."""

import argparse
import enum
import math
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import orjson

from yoloserve import commands
from yoloserve.errors import StartupFailure
from yoloserve.settings import ENV_PREFIX, SERVE_ONLY, LastWords, Settings

EX_CONFIG = 78  # sysexits.h: the configuration is wrong, and starting again will not help
TERMINATION_MESSAGE_BYTES = 4096  # what Kubernetes keeps

ABOUT = """Serve a YOLO detector over HTTP, or use it from the command line.

Every option can also be given in the environment: --image-size is YOLOSERVE_IMAGE_SIZE.
A flag wins over the environment."""
SERVE = """Serve a detector until SIGTERM.

  yoloserve serve
      the bundled detector; try it on http://127.0.0.1:8080, see /docs for its API
  yoloserve serve --model file:///models/gate.onnx --confidence 0.4
  yoloserve serve --model https://models.example.com/gate.onnx --sha256 9f2c...
      the digest is checked before the file is loaded

  curl --data-binary @street.jpg http://127.0.0.1:8080/v1/detect
  curl --data-binary @street.jpg -H "Accept: image/jpeg" http://127.0.0.1:8080/v1/detect > out.jpg

Exits with 78 when it cannot serve what it was asked to, and says why on stderr and in the
termination log, as {"reason", "message"}."""
PREDICT = """Find the objects in pictures, and print a line of JSON for each.

  yoloserve predict street.jpg
  yoloserve predict *.jpg --save out/     also draw their boxes, over no file that is there"""
BENCH = """Measure the engine alone and the whole request path (without HTTP), on one picture.

  yoloserve bench street.jpg
  yoloserve bench street.jpg --backend onnxruntime --concurrency 8

The ratio of the two is what decoding, pre- and post-processing and queueing cost."""

EVALUATE = """Compute the mean average precision, as COCO defines it, on labelled pictures.

  yoloserve evaluate data.yaml                        YOLO: the split val, else test, else train
  yoloserve evaluate annotations/instances_val.json   COCO: pictures beside it, or in images/
  yoloserve evaluate pictures/                        a folder of images/ and labels/
  yoloserve evaluate data.yaml --precision fp32 --model file:///models/gate.onnx

Pictures take the path of requests: what is scored is what is served, one class for each box.
Categories are found among the model's classes by name. What is found in one of COCO's crowds is
neither right nor wrong, as there."""
CONVERT = """Convert an ONNX model for a runtime, and compare the result with its source.

  yoloserve convert data.yaml --model file:///models/gate.onnx --precision int8 --into gate_int8/
      OpenVINO IR; int8 quantises (it needs the package nncf) and is kept in the cache. fp16 halves
      the file that --into writes; bf16 and fp32 are checked only
  yoloserve convert data.yaml --model file:///models/gate.onnx --backend tensorrt --precision fp16
      a TensorRT engine, for the GPU of this machine and this version only
  yoloserve serve --model file:///models/gate.onnx --precision int8     finds it in the cache

DATA is a data set as `evaluate` reads it, or a folder of pictures: every other one calibrates, the
others compare. A result whose objects differ too much, or that loses more mAP than 0.2 points
(int8: 1.0), is refused with the numbers, and nothing is kept."""


def main(
    arguments: Sequence[str] | None = None, *, serve: Callable[[Settings], int] = commands.serve
) -> int:
    """Run one command; return its exit code. `serve` is what the command of that name does."""
    given = vars(_parser(serve).parse_args(arguments))
    run = given.pop("run")
    flags = {name: given.pop(name) for name in Settings.model_fields.keys() & given.keys()}
    flags = {name: value for name, value in flags.items() if value is not None}
    try:
        code: int = run(Settings.read(**flags), **given)
    except StartupFailure as failure:
        sys.stderr.write(f"yoloserve: {failure.reason}: {failure}\n")
        _leave_reason(failure, LastWords(**flags).termination_log)
        return EX_CONFIG
    return code


def _parser(run_server: Callable[[Settings], int]) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("yoloserve", description=ABOUT, formatter_class=form)
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = subparsers.add_parser(
        "serve", help="answer over HTTP", description=SERVE, formatter_class=form
    )
    serve.set_defaults(run=run_server)
    _add_settings(serve, left_out=())

    predict = subparsers.add_parser(
        "predict", help="look at pictures", description=PREDICT, formatter_class=form
    )
    predict.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    predict.add_argument("--save", type=Path, metavar="DIR", help="where to write drawn pictures")
    predict.set_defaults(run=commands.predict)
    _add_settings(predict, left_out=SERVE_ONLY)

    evaluate = subparsers.add_parser(
        "evaluate", help="score on labelled pictures", description=EVALUATE, formatter_class=form
    )
    evaluate.add_argument("data", type=Path, metavar="DATA")
    evaluate.add_argument("--limit", type=_count, metavar="N", help="the first N pictures only")
    evaluate.set_defaults(run=commands.evaluate)
    _add_settings(evaluate, left_out=SERVE_ONLY)

    convert = subparsers.add_parser(
        "convert", help="make a faster model", description=CONVERT, formatter_class=form
    )
    convert.add_argument("data", type=Path, metavar="DATA")
    convert.add_argument("--into", type=Path, metavar="DIR", help="also write it there")
    convert.set_defaults(run=commands.convert)
    _add_settings(convert, left_out=SERVE_ONLY)

    bench = subparsers.add_parser(
        "bench", help="measure speed here", description=BENCH, formatter_class=form
    )
    bench.add_argument("picture", type=Path, metavar="PICTURE")
    bench.add_argument(
        "--seconds",
        type=_seconds,
        default=5,
        help="for each measurement, of which the first is not counted (5)",
    )
    bench.add_argument("--concurrency", type=_count, default=4, help="callers at a time (4)")
    bench.set_defaults(run=commands.bench)
    _add_settings(bench, left_out=SERVE_ONLY)
    return parser


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")


def _add_settings(parser: argparse.ArgumentParser, left_out: Collection[str]) -> None:
    """Make a flag of each setting; its type is checked with those from the environment."""
    group = parser.add_argument_group("settings", f"also read from {ENV_PREFIX}*")
    for name, setting in Settings.model_fields.items():
        if name in left_out:
            continue
        default = setting.get_default(call_default_factory=True)
        shown = "" if default in (None, "") else f" ({default})"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=_values(setting.annotation),
            help=f"{setting.description}{shown}".replace("%", "%%"),
        )


def _values(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return "|".join(kind)
    return "VALUE"


def _leave_reason(failure: StartupFailure, log: Path) -> None:
    """Write why into the file from which Kubernetes takes a container's last words."""
    left = {"reason": failure.reason, "message": str(failure)}
    while len(line := orjson.dumps(left)) > TERMINATION_MESSAGE_BYTES:
        left["message"] = left["message"][: len(left["message"]) * 3 // 4]
    try:
        with log.open("r+b" if log.exists() else "wb") as file:
            file.truncate()
            file.write(line)
    except OSError:
        pass  # outside of Kubernetes there is none, and stderr has said it


if __name__ == "__main__":
    sys.exit(main())
