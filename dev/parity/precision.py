"""What a precision, and decoding JPEGs at half their size, cost in mAP on held-back pictures."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.dataset import PLAIN
from parity import pictures
from yoloserve.core import EngineCore
from yoloserve.detections.postprocess import Options
from yoloserve.detector import Decode, Detector
from yoloserve.engine.starting import Engine, start
from yoloserve.errors import BackendUnsupported, ModelUnsupported
from yoloserve.images.decoding import decode_for, decode_whole
from yoloserve.quality import conversion, dataset
from yoloserve.quality.dataset import Labelled
from yoloserve.quality.evaluation import Evaluation, evaluate
from yoloserve.quality.scores import Scores
from yoloserve.scheduling.concurrency import Threads, available_cpus
from yoloserve.settings import BackendName, PrecisionName, Settings

OPTIONS = Options(confidence=0.001, iou=0.7, max_detections=300)
CALIBRATING = 300  # of them every other one; the rest compare
HALVED = 640, 480  # twice the networks' input: every picture is decoded at half
LIMITS = {PrecisionName.FP32: 0.0, PrecisionName.BF16: 0.2, PrecisionName.INT8: 1.0}
MOST_BY_DECODING = 0.1
Way = tuple[str, Engine, Decode, float]  # its name, how it computes and decodes, what it may lose


@dataclass(frozen=True, slots=True)
class Run:
    """What one way scores, and how much less than OpenVINO in fp32 on pictures decoded whole."""

    scores: Scores
    lost: float  # points of mAP50-95
    limit: float

    @property
    def good(self) -> bool:
        """Compare, with a hundredth of a point for the order in which sums are rounded."""
        return abs(self.lost) <= 0.01 or self.lost <= self.limit


def measure(folder: Path, models: Sequence[str], count: int) -> int:
    """Print a table for each model; the exit code says whether all are within their limits."""
    as_drawn = pictures.labelled(folder / "as-drawn", count)
    halved = pictures.labelled(folder / "halved", count, size=HALVED)
    calibrating = pictures.labelled(folder / "calibrating", CALIBRATING, split=PLAIN)
    bad = 0
    print("| model | computed in | pictures | mAP50-95 | mAP50 | lost | limit |")
    print("|---|---|---|---:|---:|---:|---:|")
    for model in models:
        base = Settings.read(model=model, cache_dir=folder / "cache")
        for name, data, runs in (
            (f"{count} of all sizes", as_drawn, _precisions(base, calibrating)),
            (f"{count} of {HALVED[0]}×{HALVED[1]}", halved, _decodings(base)),
        ):
            exact: float | None = None
            for told, engine, decode, limit in runs:
                scores = _look(engine, dataset.read(data, engine.info.classes), decode).scores
                exact = scores.map50_95 if exact is None else exact
                run = Run(scores, 100 * (exact - scores.map50_95), limit)
                bad += not run.good
                print(
                    f"| {engine.info.name} | {told} | {name} | {100 * scores.map50_95:.2f} "
                    f"| {100 * scores.map50:.2f} | {run.lost:+.2f} | {limit} |"
                    f"{'' if run.good else ' **too much**'}",
                    flush=True,
                )
    print(f"{bad} lose more than they may" if bad else "all within their limits")
    return min(bad, 1)


def _precisions(base: Settings, calibrating: Path) -> Iterator[Way]:
    """Compute in every precision on every runtime here, the exact one first."""
    for backend in (BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH):
        for precision in (PrecisionName.FP32, PrecisionName.BF16, PrecisionName.INT8):
            asked = base.model_copy(update={"backend": backend, "precision": precision})
            try:
                if precision is PrecisionName.INT8 and backend is BackendName.OPENVINO:
                    _, numbers = conversion.convert(asked, calibrating, None, _look)
                    print(f"converted to int8: {numbers}", file=sys.stderr)
                engine = start(asked)
            except (BackendUnsupported, ModelUnsupported):
                continue  # this runtime has no such precision, or cannot read the file
            yield f"{backend} {precision}", engine, decode_whole, LIMITS[precision]


def _decodings(base: Settings) -> Iterator[Way]:
    """Decode whole and at half, where the network computes exactly and where it does not."""
    asked = base.model_copy(update={"backend": BackendName.OPENVINO})
    exact, fast = (
        start(asked.model_copy(update={"precision": precision}))
        for precision in (PrecisionName.FP32, PrecisionName.BF16)
    )
    yield "openvino fp32, decoded whole", exact, decode_whole, 0.0
    yield "openvino fp32, decoded at half (not used)", exact, decode_for, MOST_BY_DECODING
    yield "openvino bf16, decoded whole", fast, decode_whole, LIMITS[PrecisionName.BF16]
    yield "openvino bf16, decoded at half", fast, decode_for, LIMITS[PrecisionName.BF16]


def _look(
    engine: Engine, looked_at: Sequence[Labelled], decode: Decode = decode_whole
) -> Evaluation:
    """Let an engine look at pictures by the path of requests, decoded in this way."""

    async def ask() -> Evaluation:
        threads = Threads(available_cpus(), engine.lanes)
        core = EngineCore(engine, threads, max_pixels=10**8, deadline_s=10**6)
        detector = Detector(core, threads, max_pixels=10**8, deadline_s=10**6, defaults=OPTIONS)
        detector._decode = decode
        try:
            return await evaluate(detector, looked_at, OPTIONS)
        finally:
            await core.close()

    return asyncio.run(ask())
