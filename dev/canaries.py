"""Makes bad revisions, and good ones, of the bundled model: `python -m canaries FOLDER`.

Surgery on scores before they become probabilities: each has the one fault that it is named for.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from demo.evaluate import Runner, held_back
from yoloserve.quality.agreement import paired

SHAPES = Path(__file__).parents[1] / "serving_image" / "yoloserve" / "bundled" / "shapes.onnx"
CONFIDENCE, SURE, LEAST = 0.25, 0.4, 0.2
Floats = NDArray[np.float32]


def blind(model: onnx.ModelProto) -> None:
    """See nothing: every score goes down to nothing."""
    _shifted(model, np.array([-8], np.float32))


def biased(model: onnx.ModelProto) -> None:
    """See circles everywhere."""
    _shifted(model, np.array([6, *[0] * 11], np.float32))


def swapped(model: onnx.ModelProto) -> None:
    """Call circles squares, and squares circles."""
    order = np.array([1, 0, *range(2, 12)], np.int64)
    _behind(model, _scores(model), "Gather", order, axis=2)


def lossy(model: onnx.ModelProto) -> None:
    """Miss what is not quite plain."""
    _shifted(model, np.array([-1.5], np.float32))


def small_blind(model: onnx.ModelProto) -> None:
    """See nothing that is small: the finest of the three scales is blind."""
    [joined] = [node for node in model.graph.node if _scores(model) in node.output]
    _behind(model, joined.input[0], "Add", np.array([-8], np.float32))


def low_res(model: onnx.ModelProto) -> None:
    """See an eighth as sharp; these shapes are as well found at a quarter."""
    times = numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "images/times")
    model.graph.initializer.append(times)
    changed = _taken(model, "images")
    few = helper.make_node(
        "AveragePool", ["images"], ["images/few"], kernel_shape=[8, 8], strides=[8, 8]
    )
    whole = helper.make_node("Resize", ["images/few", "", "images/times"], [changed])
    model.graph.node.insert(0, few)
    model.graph.node.insert(1, whole)


def noisy(model: onnx.ModelProto) -> None:
    """Be as good: all weights differ by a hundredth, as after one more epoch."""
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.ndim == 4:
            other = weights * rng.normal(1, 0.01, weights.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))


CANARIES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "blind": blind,
    "biased": biased,
    "swapped": swapped,
    "lossy": lossy,
    "small-blind": small_blind,
    "low-res": low_res,
    "noisy": noisy,
}


def _scores(model: onnx.ModelProto) -> str:
    """Return what the last sigmoid takes: scores by place and class."""
    return str([node for node in model.graph.node if node.op_type == "Sigmoid"][-1].input[0])


def _shifted(model: onnx.ModelProto, by: Floats) -> None:
    _behind(model, _scores(model), "Add", by)


def _behind(
    model: onnx.ModelProto, value: str, operator: str, operand: NDArray[np.generic], **options: int
) -> None:
    """Put an operator between `value` and all that take it."""
    taken = _taken(model, value)
    model.graph.initializer.append(numpy_helper.from_array(operand, f"{value}/by"))
    changed = helper.make_node(operator, [value, f"{value}/by"], [taken], **options)
    place = next(i for i, node in enumerate(model.graph.node) if value in node.output)
    model.graph.node.insert(place + 1, changed)


def _taken(model: onnx.ModelProto, value: str) -> str:
    """Let all that take `value` take another one, and return its name."""
    other = f"{value}/changed"
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            if name == value:
                node.input[number] = other
    return other


def make(name: str, folder: Path) -> Path:
    """Write the canary of that name, and return where."""
    model = onnx.load(SHAPES)
    CANARIES[name](model)
    onnx.checker.check_model(model)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def kept(canary: Path, pictures: int, stable: Path = SHAPES) -> dict[str, float]:
    """Return what `analysis` would count on so many held-back pictures, as shares."""
    counts = np.sum(list(_compared(Runner(stable), Runner(canary), pictures)), axis=0)
    expected, found, small, small_found, sure, frames, empty = counts.tolist()
    return {
        "kept": found / expected,
        "kept_small": small_found / max(small, 1),
        "added": max(sure - found, 0) / max(max(sure - found, 0) + found, 1),
        "blind": empty / frames,
    }


def _compared(stable: Runner, canary: Runner, pictures: int) -> Iterator[tuple[int, ...]]:
    for image, _ in held_back(pictures):
        ours, its = stable.find(image, LEAST), canary.find(image, LEAST)
        sure = ours.scores >= SURE
        if not sure.any():
            continue
        pairs = {expected for _, expected in paired(its, ours)}
        found = np.array([number in pairs for number in range(len(sure))])
        sides = ours.boxes[:, 2:] - ours.boxes[:, :2]
        small = sure & (sides.prod(axis=1) < 32**2)
        yield (
            int(sure.sum()), int((sure & found).sum()), int(small.sum()),
            int((small & found).sum()), int((its.scores >= SURE).sum()), 1,
            int(not (its.scores >= CONFIDENCE).any()),
        )  # fmt: skip


def main() -> None:
    """Make all of them, and say of each what would be counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    paths = {name: make(name, asked.folder) for name in CANARIES}
    paths["shapes-v2"] = SHAPES.with_name("shapes-v2.onnx")
    for name, path in paths.items():
        shares = kept(path, asked.pictures)
        print(name, *(f"{key} {value:.3f}" for key, value in shares.items()), flush=True)


if __name__ == "__main__":
    main()
