"""Release twenty good models, and say what became of them: `python -m judging.good`.

Each is a bundled model as people change one without harm: weights a little other, rounded,
quantised, a few of them cut, or the better model. Pairs are counted as a server's shadow counts
them, on held-back pictures; the `judge` that runs sees them for a whole release with default steps,
at 20 pictures a second and at one. A release that is ever called off is a fault.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, quantize_static

from canaries import SHAPES
from demo.dataset import HELD_BACK
from demo.geometry import letterbox, tensor
from demo.pictures import draw
from judging.pairs import Pair, looked_at, paired, show
from played_pods import Played
from yolofleet.api.analysis import Stage, Verdict

CALIBRATED_ON = range(5_000_000, 5_000_064)  # of the held-back split, shown to nobody else
# Weight, the next one, and the least looks of ten seconds; the first step is in the dark. At one
# picture a second a step of 1 % would wait for hours.
STEPS = {
    20: ((0, 1, 12), (1, 5, 12), (5, 25, 30), (25, 50, 30), (50, 100, 30)),
    1: ((0, 25, 12), (25, 50, 30), (50, 100, 30)),
}
MOST_LOOKS = 720  # at one step, for what is not proved yet: two hours
Floats = NDArray[np.float32]
Change = Callable[[Floats], Floats]


def noise(sigma: float, seed: int) -> Change:
    """Change each weight by a part of itself, as training on does."""
    rng = np.random.default_rng(seed)
    return lambda weights: weights * rng.normal(1, sigma, weights.shape).astype(np.float32)


def half(weights: Floats) -> Floats:
    """Round to 16 bits, ten of them for the fraction."""
    return weights.astype(np.float16).astype(np.float32)


def bfloat16(weights: Floats) -> Floats:
    """Round to 16 bits, seven of them for the fraction."""
    bits = weights.view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)
    rounded: Floats = (nearest & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


def eight_bits(weights: Floats) -> Floats:
    """Round to 255 steps for each output channel."""
    step = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
    rounded: Floats = np.round(weights / step) * step
    return rounded


def pruned(share: float, weights: Floats) -> Floats:
    """Cut the smallest."""
    return np.where(np.abs(weights) < np.quantile(np.abs(weights), share), np.float32(0), weights)


def changed(base: Path, change: Change, path: Path) -> None:
    """Write the model with the weights of its convolutions changed."""
    model = onnx.load(base)
    for initializer in model.graph.initializer:
        weights = numpy_helper.to_array(initializer)
        if weights.dtype == np.float32 and weights.ndim == 4:
            other = np.ascontiguousarray(change(weights), np.float32)
            initializer.CopyFrom(numpy_helper.from_array(other, initializer.name))
    onnx.save(model, path)


class _Pictures:
    def __init__(self) -> None:
        self._left = iter(CALIBRATED_ON)

    def get_next(self) -> dict[str, Floats] | None:
        number = next(self._left, None)
        if number is None:
            return None
        square, _ = letterbox(draw(HELD_BACK, number).image)
        return {"images": tensor(square)}


def quantised(base: Path, path: Path) -> None:
    """Write the model with its convolutions in eight bits.

    Not its last layers: eight bits for pixels and probabilities in one tensor lose all scores.
    """
    quantize_static(
        base,
        path,
        _Pictures(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
    )


WEIGHTS: dict[str, Change] = {
    "noise of 0.5 %": noise(0.005, 1),
    "noise of 1 %": noise(0.01, 2),
    "noise of 1 %, again": noise(0.01, 3),
    "noise of 2 %": noise(0.02, 4),
    "float16": half,
    "bfloat16": bfloat16,
    "weights in int8": eight_bits,
    "2 % of weights cut": partial(pruned, 0.02),
    "5 % of weights cut": partial(pruned, 0.05),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a release: its last verdict, after how many looks it was over, and why."""

    verdict: Verdict
    looks: int
    why: str


def release(pair: Pair, a_second: int) -> Outcome:
    """Judge a release with so many pictures a second, step by step, until it is over."""
    rng = np.random.default_rng(a_second)
    played, looks, a_look = Played(), 0, 10 * a_second
    status = played.look()
    for weight, following, least in STEPS[a_second]:
        stage = Stage.LIVE if weight else Stage.DARK
        played.arguments = {"stage": stage, "weight": weight, "following": following}
        for held in range(1, MOST_LOOKS + 1):
            looks += 1
            show(played, pair, rng.multinomial(a_look, [1 / len(pair.seen)] * len(pair.seen)))
            mine = rng.binomial(a_look, weight / 100)
            _answer(played, rng, mine, a_look - mine)
            status = played.look()
            over = status.verdict is Verdict.PASS and held >= least
            if over or status.verdict is Verdict.FAIL:
                break
        if status.verdict is not Verdict.PASS:
            told = (c for c in status.checks if c.verdict is status.verdict)
            return Outcome(status.verdict, looks, "; ".join(f"{c.name}: {c.message}" for c in told))
    return Outcome(status.verdict, looks, "")


def _answer(played: Played, rng: np.random.Generator, mine: int, others: int) -> None:
    """Have both answer requests themselves: alike, and one in a thousand not at all."""
    for [pod], count in ((played.canary, mine), (played.stable, others)):
        failed = rng.binomial(count, 0.001)
        pod.requests["internal"] += int(failed)
        for ms in rng.lognormal(np.log(30), 0.4, count - failed):
            pod.answers(1, ms=float(ms))


def rows(pictures: int) -> Iterator[tuple[str, Outcome]]:
    """Release all of them, and say what became of each."""
    cv2.setNumThreads(1)
    drawn = [draw(HELD_BACK, number) for number in range(pictures)]
    bases = [SHAPES, SHAPES.with_name("shapes-v2.onnx")]
    known = {base: looked_at(base, drawn) for base in bases}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for base in bases:
            makers: dict[str, Callable[[], object]] = {
                name: partial(changed, base, change, path) for name, change in WEIGHTS.items()
            }
            makers["all in int8"] = partial(quantised, base, path)
            for name, make in makers.items():
                make()
                pair = paired(known[base], looked_at(path, drawn))
                yield from _released(f"{base.stem}, {name}", pair)
    yield from _released("shapes → shapes-v2", paired(*known.values()))


def _released(name: str, pair: Pair) -> Iterator[tuple[str, Outcome]]:
    print(name, *(f"{key} {share:.3f}" for key, share in pair.shares().items()), flush=True)
    for a_second in STEPS:
        yield f"{name}, {a_second}/s", release(pair, a_second)


def main() -> int:
    """Release all, and return 1 if any was called off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    asked = parser.parse_args()
    called_off = 0
    for name, outcome in rows(asked.pictures):
        called_off += outcome.verdict is Verdict.FAIL
        print(f"  {name}: {outcome.verdict} after {outcome.looks} looks. {outcome.why}", flush=True)
    print(f"called off: {called_off}")
    return int(called_off > 0)


if __name__ == "__main__":
    sys.exit(main())
