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
from numpy.typing import NDArray

from canaries import CANARIES, SHAPES, make
from demo.dataset import HELD_BACK, dense_sample, plain_sample
from demo.evaluate import Runner
from demo.export import fused, metadata, write_onnx
from demo.geometry import SIDE
from demo.models import MODELS, Model, Stage
from demo.network import Detector, Network
from demo.pictures import Picture, draw
from demo.shapes import NAMES
from demo.train import optimise
from played_pods import Played
from yolofleet.api.analysis import Analysis, Verdict
from yoloserve.quality.scores import Truth, score
from yoloserve.shadow.pairs import NEARLY, SIZES, Found, difference

CONFIDENCE = 0.25  # the server's
APART = 100_000  # pictures of one seed, at most: another begins behind them
ENOUGH = 30  # objects of a class or size, below which none is judged
MOST_LOOKS = 90  # a quarter of an hour
Ints = NDArray[np.int64]


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


@dataclass(frozen=True)
class Seen:
    """What a model finds in each picture, and how good that is."""

    found: list[Found]
    map50: float


@dataclass(frozen=True)
class Pair:
    """What a shadow counts of one model beside another, picture by picture."""

    expected: Ints  # (pictures, classes, sizes)
    kept: Ints
    sure: Ints  # (pictures,)
    seen: Ints
    blind: Ints

    def shares(self) -> dict[str, float]:
        """Return what the checks hold against their limits."""
        expected, kept = self.expected.sum(axis=0), self.kept.sum(axis=0)
        known, more = kept.sum(), max(self.sure.sum() - kept.sum(), 0)
        by_class = _least(kept.sum(axis=1), expected.sum(axis=1))
        return {
            "kept": known / max(expected.sum(), 1),
            "class": by_class,
            "size": _least(kept.sum(axis=0), expected.sum(axis=0)),
            "added": more / max(more + known, 1),
            "blind": self.blind.sum() / max(self.seen.sum(), 1),
        }

    def verdict(self, analysis: Analysis, rng: np.random.Generator) -> tuple[str, int]:
        """Let the real `judge` look at 200 of the pictures every 10 s, and return what it says.

        With the names of the checks that failed or are not proved, and after how many looks.
        """
        played = Played(analysis)
        played.look()
        number, verdict = 0, Verdict.INCONCLUSIVE
        while number < MOST_LOOKS and verdict is Verdict.INCONCLUSIVE:
            number += 1
            often = rng.multinomial(200, [1 / len(self.seen)] * len(self.seen))
            _show(played, self, often)
            verdict = played.look().verdict
        why = [name for name, told in played.verdicts().items() if told == str(verdict)]
        return f"{verdict}: {', '.join(why)}" if verdict is not Verdict.PASS else "Pass", number


def _least(kept: Ints, expected: Ints) -> float:
    enough = expected >= ENOUGH
    return float((kept[enough] / expected[enough]).min()) if enough.any() else 1.0


def _show(played: Played, pair: Pair, often: Ints) -> None:
    """Count each picture so often as a pod of the stable revision would."""
    [pod] = played.stable
    for counted, counts in ((pod.expected, pair.expected), (pod.kept, pair.kept)):
        for name, sizes in zip(NAMES, np.tensordot(often, counts, 1).tolist(), strict=True):
            row = counted.setdefault(name, [0, 0, 0])
            row[:] = [one + more for one, more in zip(row, sizes, strict=True)]
    pod.sure[NAMES[0]] += int(often @ pair.sure)
    pod.seen += int(often @ pair.seen)
    pod.blind += int(often @ pair.blind)
    pod.frames["compared"] += int(often.sum())
    for arm in pod.compute.values():
        for bucket, share in ((30, 100), (31, 60), (32, 40)):
            arm[bucket] += share


def looked_at(path: Path, pictures: list[Picture]) -> Seen:
    """Let a model find what is in all pictures, and score that."""
    runner = Runner(path)
    found = [runner.find(picture.image, 0.01) for picture in pictures]
    truth = [Truth(picture.boxes, picture.classes) for picture in pictures]
    told = [
        Found(each[each.scores >= CONFIDENCE - NEARLY], tuple(NAMES), CONFIDENCE, 0.0)
        for each in found
    ]
    return Seen(told, score(found, truth, len(NAMES)).map50)


def paired(stable: Seen, canary: Seen) -> Pair:
    """Pair the answers of two models as a server's shadow does."""
    shape = len(stable.found), len(NAMES), len(SIZES)
    expected, kept = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    sure, seen, blind = (np.zeros(len(stable.found), np.int64) for _ in range(3))
    for at, both in enumerate(zip(stable.found, canary.found, strict=True)):
        told = difference(*both)
        for counts, counted in ((expected, told.expected), (kept, told.kept)):
            for (name, size), many in counted.items():
                counts[at, NAMES.index(name), SIZES.index(size)] = many
        sure[at], seen[at] = told.sure.total(), told.blind is not None
        blind[at] = bool(told.blind)
    return Pair(expected, kept, sure, seen, blind)


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
