"""What training minimises: class scores, overlap of boxes, and the side distributions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.assign import SMALLEST, assign, iou
from demo.network import BINS, decode

Output = tuple[Tensor, Tensor, Tensor, Tensor]
BOX_WEIGHT, SIDES_WEIGHT, SCORE_WEIGHT = 3.0, 0.8, 1.0


def detection_loss(output: Output, classes: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Return one number for a batch; the objects are padded as `assign` takes them."""
    logits, sides, centres, strides = output
    boxes = decode(sides, centres, strides)
    aim = assign(logits.detach().sigmoid(), boxes.detach(), centres, classes, truth, known)
    total = aim.weight.sum().clamp(min=1)
    score_loss = F.binary_cross_entropy_with_logits(logits, aim.scores, reduction="sum") / total
    chosen = aim.weight > 0
    weight = aim.weight[chosen]
    misfit = 1 - complete_iou(boxes[chosen], aim.boxes[chosen])
    cell = chosen.nonzero()[:, 1]
    wanted = distances(aim.boxes[chosen], centres[cell], strides[cell])
    side_loss = distribution_loss(sides[chosen], wanted)
    box_loss = ((BOX_WEIGHT * misfit + SIDES_WEIGHT * side_loss) * weight).sum() / total
    return SCORE_WEIGHT * score_loss + box_loss


def distances(boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Return how far the four sides lie from the cell centres, in strides, within the bins."""
    reach = torch.cat((centres - boxes[:, :2], boxes[:, 2:] - centres), 1) / strides
    return reach.clamp(0, BINS - 1.01)


def distribution_loss(sides: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy to the two bins around each wanted distance; (N, 4, BINS), (N, 4) -> (N,)."""
    lower = wanted.long()
    share = wanted - lower
    logs = sides.log_softmax(2)
    below = logs.gather(2, lower[..., None])[..., 0]
    above = logs.gather(2, lower[..., None] + 1)[..., 0]
    return -(below * (1 - share) + above * share).mean(1)


def complete_iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoU less penalties for distance and proportion (Zheng et al., CIoU, 2020); (N, 4) -> (N,)."""
    overlap = iou(boxes, truth)
    hull = torch.maximum(boxes[:, 2:], truth[:, 2:]) - torch.minimum(boxes[:, :2], truth[:, :2])
    diagonal = hull.square().sum(1) + SMALLEST
    gap = (boxes[:, :2] + boxes[:, 2:] - truth[:, :2] - truth[:, 2:]).square().sum(1) / 4
    bent = 4 / math.pi**2 * (slant(truth) - slant(boxes)).square()
    with torch.no_grad():
        trade = bent / (1 - overlap + bent + SMALLEST)
    return overlap - gap / diagonal - trade * bent


def slant(boxes: Tensor) -> Tensor:
    """Return the angle of each box's diagonal."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=SMALLEST)
    return torch.atan(size[:, 0] / size[:, 1])
