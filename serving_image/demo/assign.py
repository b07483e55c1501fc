"""Which cells learn which object: task-aligned assignment (Feng et al., "TOOD", 2021)."""

# Torch is not read by mypy (see pyproject.toml), so its classes and decorators have no types.
# mypy: disallow-untyped-decorators=False

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 10  # cells an object may claim
ALPHA, BETA = 0.5, 6.0  # weight of the class score and of the overlap, as in the paper
SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class Targets:
    """What each cell of each picture has to say; `weight` is zero for background."""

    scores: Tensor  # (B, A, classes)
    boxes: Tensor  # (B, A, 4)
    weight: Tensor  # (B, A)


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, classes: Tensor, truth: Tensor, known: Tensor
) -> Targets:
    """Give each object the cells inside it that already score and fit best.

    scores (B, A, classes) after the sigmoid, boxes (B, A, 4), centres (A, 2); objects padded to M:
    classes (B, M) int64, truth (B, M, 4), known (B, M) bool.
    """
    overlaps = iou(truth[:, :, None], boxes[:, None]).clamp(min=0)  # (B, M, A)
    wanted = classes[:, :, None].expand(-1, -1, scores.shape[1])
    score = scores.transpose(1, 2).gather(1, wanted)
    low, high = truth[:, :, None, :2], truth[:, :, None, 2:]
    inside = ((centres > low) & (centres < high)).all(3) & known[:, :, None]
    alignment = score**ALPHA * overlaps**BETA * inside

    best = alignment.topk(CANDIDATES, dim=2).indices
    claimed = torch.zeros_like(inside).scatter_(2, best, True) & inside & (alignment > SMALLEST)
    # A cell that several objects claim goes to the one it overlaps most.
    rival = torch.where(claimed, overlaps, -1.0)
    owner = rival.argmax(1)  # (B, A)
    claimed &= torch.zeros_like(claimed).scatter_(1, owner[:, None], True)
    taken = claimed.any(1)

    # The best cell of an object aims at the object's best overlap, the others in proportion.
    kept = alignment * claimed
    top = kept.amax(2, keepdim=True).clamp(min=SMALLEST)
    reach = (overlaps * claimed).amax(2, keepdim=True)
    weight = (kept / top * reach).amax(1)  # (B, A)

    label = classes.gather(1, owner)
    target_scores = torch.zeros_like(scores).scatter_(2, label[..., None], weight[..., None])
    target_boxes = truth.gather(1, owner[..., None].expand(-1, -1, 4))
    return Targets(target_scores, target_boxes, weight * taken)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlap of boxes (..., 4), x1 y1 x2 y2, broadcast."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (area(first) + area(second) - shared + SMALLEST)


def area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes (..., 4)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
