"""The two bundled detectors: how wide they are and how long they train."""

from dataclasses import dataclass

from demo.network import Network, Widths
from demo.shapes import NAMES


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: the different pictures drawn for it, and how many are shown."""

    drawn: int
    shown: int


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that decides the weights, besides the generator's own code."""

    version: str
    date: str
    widths: Widths
    dense: Stage  # first: small pictures full of objects, which teach the classes
    plain: Stage  # then: pictures as the detector will meet them
    rate: float = 2e-3
    batch: int = 8
    seed: int = 1

    def network(self) -> Network:
        """Return the untrained network."""
        return Network(self.widths, len(NAMES))


MODELS = {
    "shapes": Model(
        version="1.0.0",
        date="2026-11-22",
        widths=Widths(stem=(16, 24), stages=(40, 80, 128), pyramid=40, head=32, depth=1),
        dense=Stage(drawn=5_000, shown=20_000),
        plain=Stage(drawn=3_000, shown=6_000),
    ),
    "shapes-v2": Model(
        version="2.0.0",
        date="2026-11-22",
        widths=Widths(stem=(16, 24), stages=(48, 96, 160), pyramid=48, head=40, depth=1),
        dense=Stage(drawn=10_000, shown=36_000),
        plain=Stage(drawn=5_000, shown=10_000),
    ),
}
