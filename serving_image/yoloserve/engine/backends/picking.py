"""Picks the surest places of an output where it was computed; with Torch, on any device.

Nothing in it depends on a request, so that it can be part of a captured graph.
"""

import torch

from yoloserve.detections.postprocess import Head
from yoloserve.detections.surest import MOST

NEVER = float("-inf")  # passes no threshold


def pick(output: torch.Tensor, head: Head, most: int = MOST) -> torch.Tensor:
    """Return the surest places of each image, as `surest.Surest` has them: (N, places, COLUMNS).

    output: (N, …) in fp32, of any head but one that suppresses by itself.
    """
    if head is Head.ANCHOR_FREE:
        boxes, (scores, classes) = output[:, :4].transpose(1, 2), output[:, 4:].max(dim=1)
        key = scores
    elif head is Head.ANCHOR_FREE_ROWS:
        boxes, (scores, classes) = output[..., :4], output[..., 4:].max(dim=2)
        key = scores
    else:
        objectness = output[..., 4]
        boxes, (scores, classes) = output[..., :4], (output[..., 5:] * output[..., 4:5]).max(dim=2)
        key = torch.minimum(scores, objectness)
    # What is no number passes no threshold, and would count as the largest. Filled, not chosen by
    # `where`, which copies its constant to the device: nothing may be copied into a capture.
    key = key.masked_fill(key.isnan(), NEVER)
    key, places = key.topk(min(most, key.shape[1]), dim=1)

    def of(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.gather(1, places).float()

    columns = places.float(), key, of(scores), of(classes)
    picked = boxes.gather(1, places[..., None].expand(-1, -1, 4))
    return torch.cat((torch.stack(columns, dim=2), picked), dim=2)
