"""What honest retrainings keep of each other: `python -m judging.retrained train FOLDER`.

Limits of judging are chosen by it: `compare FOLDER` pairs the answers of all models with the code
that a server's shadow pairs them with, on pictures that none was trained on. Each retraining has a
seed and pictures of its own. Those from nothing are shown a quarter of what the bundled model was
shown, as each takes minutes of a core; those that go on begin at the bundled model's weights.
"""

# Torch is not read by mypy (see pyproject.toml).

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from canaries import CANARIES, SHAPES, make
from demo.dataset import HELD_BACK, dense_sample, plain_sample
from demo.export import fused, metadata, write_onnx
from demo.geometry import SIDE
from demo.models import MODELS, Model, Stage
from demo.network import Detector, Network
from demo.pictures import draw
from demo.train import optimise
from judging.pairs import looked_at, paired
from yolofleet.api.analysis import Analysis

APART = 100_000  # pictures of one seed, at most: another begins behind them


@dataclass(frozen=True)
class Continued(Model):
    """The bundled model, trained on with other pictures; its normalisations stay folded away.

    anew: parts that begin at random weights, as who takes a trained backbone does.
    """

    anew: tuple[str, ...] = ()

    def network(self) -> Network:
        """Return the network to begin with."""
        network = fused(super().network())
        known = torch.jit.load(str(SHAPES.with_suffix(".torchscript"))).state_dict()
        weights = {key.removeprefix("network."): value for key, value in known.items()}
        kept = {key: w for key, w in weights.items() if not key.startswith(self.anew or "-")}
        network.load_state_dict(network.state_dict() | kept)
        return network


_ON = Continued(
    **{field.name: getattr(MODELS["shapes"], field.name) for field in fields(Model)}
    | {"rate": 5e-4, "dense": Stage(500, 1600), "plain": Stage(500, 800)}
)
_HEADS = replace(_ON, rate=1e-3, anew=("heads.",))
RETRAININGS: dict[str, Model] = {
    "heads-1": replace(_HEADS, seed=21),
    "on-1": replace(_ON, seed=11),
    "heads-2": replace(_HEADS, seed=22),
    "heads-3": replace(_HEADS, seed=23),
    "on-2": replace(_ON, seed=12),
    "heads-4": replace(_HEADS, seed=24),
    "heads-5": replace(_HEADS, seed=25),
    "on-3": replace(_ON, seed=13),
}


def train(name: str, folder: Path) -> None:
    """Train one of them, and write it to FOLDER as ONNX."""
    model = RETRAININGS[name]
    began = time.monotonic()
    torch.manual_seed(model.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    first = model.seed * APART
    dense = [dense_sample(first + index) for index in range(model.dense.drawn)]
    plain = [plain_sample(first + index) for index in range(model.plain.drawn)]
    network = optimise(model, dense, plain).eval()
    whole = network if isinstance(model, Continued) else fused(network)
    with torch.no_grad():
        example = torch.zeros(1, 3, SIDE, SIDE)
        write_onnx(
            Detector(whole).eval(), example, folder / f"{name}.onnx", metadata("shapes", model)
        )
    print(f"{name}: {(time.monotonic() - began) / 60:.1f} min", flush=True)


def compare(folder: Path, count: int, analysis: Analysis) -> Iterator[str]:
    """Compare all models in FOLDER and those that are bundled, and the bad ones; say it in rows."""
    pictures = [draw(HELD_BACK, index) for index in range(count)]
    bundled = {path.stem: path for path in SHAPES.parent.glob("*.onnx")}
    made = {name: folder / f"{name}.onnx" for name in RETRAININGS}
    honest = {
        name: looked_at(path, pictures) for name, path in (bundled | made).items() if path.exists()
    }
    for name, seen in honest.items():
        yield f"{name}: mAP50 {seen.map50:.3f}"
    pairs = {(one, other): (honest[one], honest[other]) for one, other in permutations(honest, 2)}
    with TemporaryDirectory() as bad:
        for name in CANARIES:
            pairs["shapes", name] = honest["shapes"], looked_at(make(name, Path(bad)), pictures)
            yield f"{name}: mAP50 {pairs['shapes', name][1].map50:.3f}"
    rng = np.random.default_rng(1)
    for (one, other), both in pairs.items():
        pair = paired(*both)
        shares = " | ".join(f"{share:.3f}" for share in pair.shares().values())
        gain = both[1].map50 - both[0].map50
        verdict, looks = pair.verdict(analysis, rng)
        yield f"| {one} | {other} | {gain:+.3f} | {shares} | {verdict} | {looks * 10} s |"


def main() -> None:
    """Train, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["train", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--limits", type=json.loads, default={}, help="JSON of analysis")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.command == "compare":
        for row in compare(asked.folder, asked.pictures, Analysis(**asked.limits)):
            print(row, flush=True)
        return
    for name in RETRAININGS:
        if not (asked.folder / f"{name}.onnx").exists():
            train(name, asked.folder)


if __name__ == "__main__":
    main()
