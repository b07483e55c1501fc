"""The detector's network: a small convolutional backbone, a top-down pyramid, one head per level.

Anchor-free: every cell of the 8, 16 and 32 pixel grids predicts class scores and the distances from
its centre to the four sides of a box, each distance as a distribution over bins (Li et al.,
"Generalized Focal Loss", 2020). Fully convolutional, so height, width and batch are free.
"""

# Torch is not read by mypy (see pyproject.toml), so its classes and decorators have no types.
# mypy: disallow-subclassing-any=False

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
BINS = 12  # distances reach (BINS - 1) strides; 320 px pictures need at most 10 of 32 px


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels at strides 2, 4, 8, 16 and 32, of the pyramid, and blocks per stage."""

    stem: tuple[int, int]
    stages: tuple[int, int, int]
    pyramid: int
    head: int
    depth: int


class Conv(nn.Sequential):
    """A convolution, batch normalisation and, unless told otherwise, a rectifier."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(channels, channels), Conv(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, channels, H, W)."""
        return features + self.body(features)


class Split(nn.Module):
    """Half the channels pass through residual blocks, half pass by; a 1x1 convolution mixes them.

    The cross-stage partial idea of Wang et al. (CSPNet, 2019): half the work of a full block.
    """

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.by = Conv(inputs, half, 1)
        self.through = nn.Sequential(Conv(inputs, half, 1), *(Residual(half) for _ in range(depth)))
        self.mix = Conv(2 * half, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        return self.mix(torch.cat((self.by(features), self.through(features)), 1))


class Head(nn.Module):
    """Class scores and box distances of one level, from separate branches."""

    def __init__(self, channels: int, width: int, classes: int, stride: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(Conv(channels, width), nn.Conv2d(width, classes, 1))
        self.sides = nn.Sequential(Conv(channels, width), nn.Conv2d(width, 4 * BINS, 1))
        # About one object in a hundred cells of the coarsest grid: without this prior the many
        # background cells drown the first hundred steps.
        bias = self.scores[1].bias
        assert isinstance(bias, nn.Parameter)
        nn.init.constant_(bias, math.log(5 / classes / (320 / stride) ** 2))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, classes, H, W) and (B, 4 * BINS, H, W)."""
        return self.scores(features), self.sides(features)


class Network(nn.Module):
    """Pictures in (B, 3, H, W), 0..1 RGB; raw scores and side distributions out, for the loss."""

    def __init__(self, widths: Widths, classes: int) -> None:
        super().__init__()
        first, second = widths.stem
        third, fourth, fifth = widths.stages
        pyramid, depth = widths.pyramid, widths.depth
        self.stem = nn.Sequential(
            Conv(3, first, 3, 2), Conv(first, second, 3, 2), Split(second, second, 1)
        )
        self.eighth = nn.Sequential(Conv(second, third, 3, 2), Split(third, third, depth))
        self.sixteenth = nn.Sequential(Conv(third, fourth, 3, 2), Split(fourth, fourth, depth))
        self.thirtysecond = nn.Sequential(Conv(fourth, fifth, 3, 2), Split(fifth, fifth, depth))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top = Conv(fifth, pyramid, 1)
        self.middle = Split(fourth + pyramid, pyramid, 1)
        self.bottom = Split(third + pyramid, pyramid, 1)
        self.heads = nn.ModuleList(
            Head(pyramid, widths.head, classes, stride) for stride in STRIDES
        )
        self.classes = classes

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (B, A, classes), sides (B, A, 4, BINS), centres (A, 2), strides (A, 1).

        Height and width must be multiples of 32. A = H*W/64 + H*W/256 + H*W/1024.
        """
        eighth = self.eighth(self.stem(pictures))
        sixteenth = self.sixteenth(eighth)
        coarse = self.top(self.thirtysecond(sixteenth))
        middle = self.middle(torch.cat((sixteenth, self.up(coarse)), 1))
        fine = self.bottom(torch.cat((eighth, self.up(middle)), 1))
        logits, sides, centres, strides = [], [], [], []
        for head, stride, features in zip(self.heads, STRIDES, (fine, middle, coarse), strict=True):
            score, side = head(features)
            logits.append(score.flatten(2).transpose(1, 2))
            sides.append(side.flatten(2).transpose(1, 2))
            grid = cell_centres(features) * stride
            centres.append(grid)
            strides.append(torch.full_like(grid[:, :1], stride))
        return (
            torch.cat(logits, 1),
            torch.cat(sides, 1).unflatten(2, (4, BINS)),
            torch.cat(centres),
            torch.cat(strides),
        )


class Detector(nn.Module):
    """`Network` with the public exporters' output: (B, 4 + classes, A), boxes as cx, cy, w, h."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes in pixels of the input and scores after the sigmoid."""
        logits, sides, centres, strides = self.network(images)
        boxes = decode(sides, centres, strides)
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        size = boxes[..., 2:] - boxes[..., :2]
        return torch.cat((middle, size, logits.sigmoid()), 2).transpose(1, 2)


def decode(sides: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Turn side distributions (B, A, 4, BINS) into boxes (B, A, 4), x1 y1 x2 y2 in pixels."""
    bins = torch.arange(BINS, dtype=sides.dtype, device=sides.device)
    reach = (sides.softmax(3) * bins).sum(3) * strides
    return torch.cat((centres - reach[..., :2], centres + reach[..., 2:]), 2)


def cell_centres(features: Tensor) -> Tensor:
    """Return the cell centres (H*W, 2) of a feature map, x y in cells, row by row.

    Running sums instead of `arange(height)`: tracing would write the height down as a constant,
    and the exported network would only take pictures of one size.
    """
    ones = torch.ones_like(features[0, 0])
    x = ones.cumsum(1) - 0.5
    y = ones.cumsum(0) - 0.5
    return torch.stack((x.flatten(), y.flatten()), 1)
