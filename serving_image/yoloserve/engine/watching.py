"""Does it still see? The answer to one picture, compared now and then with that of the start.

Servers that answer 200 with no boxes, after days, are the known failure of this trade. The same
picture through the same network gives the same numbers, whatever the network was made to find: so
this needs no knowledge of the model.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.heads import scores_of
from yoloserve.detections.postprocess import Head, Output

log = logging.getLogger(__name__)

# Of the mean of the numbers. Lanes and batches differ by rounding; a blind network by everything.
MOST_CHANGE = 0.05
MOST_SCORE_CHANGE = 0.5  # of the mean score: small ones, of a picture that holds nothing, vary more
# Of the objects of an end-to-end head: up to 0.04 by rounding to bf16, 1 without scores.
MOST_OBJECT_CHANGE = 0.1
SURE = 0.5  # whatever is surer is above the threshold of any graph that hides the rest
SPREAD = 0.1  # of all scores, what is above the least sure one; with less, all are about as sure
MARGIN = 0.05  # by which each of those counts
LEAST = 1e-6  # mean that a change is told of
LOOK_TIMEOUT_S = 30.0  # an engine that hangs does not see either
LOOK_AGAIN_S = 5.0
BLIND_LOOKS = 3  # in a row, and the process is of no more use
BUSY_ROUNDS = 10  # so many rounds are passed over while there is work; then it looks all the same


def seen_alike(output: Output, reference: Output, head: Head) -> bool:
    """Say whether a network's output is still what it was."""
    if not np.isfinite(output).all():
        return False
    if head is Head.END_TO_END:
        return _objects_changed(output, reference) <= MOST_OBJECT_CHANGE
    if output.shape != reference.shape:
        return False
    scores = _changed(scores_of(output, head), scores_of(reference, head))
    return _changed(output, reference) <= MOST_CHANGE and scores <= MOST_SCORE_CHANGE


def _changed(numbers: NDArray[np.floating], before: NDArray[np.floating]) -> float:
    return float(np.abs(numbers - before).mean()) / max(float(np.abs(before).mean()), LEAST)


def _objects_changed(output: Output, reference: Output) -> float:
    """Compare objects without their order or number.

    They come surest first: rounding exchanges those that are about as sure, and near the graph's
    threshold, or its end, some come and go. So each coordinate counts as much as its object is
    surer than the least sure one, and is compared by rank; a row that is missing counts nothing.
    Where all are about as sure as that one, as a single one is, all of them count.
    """
    scores = np.concatenate((output[:, 4], reference[:, 4]))
    least = scores[scores > 0].min(initial=SURE)
    were = reference[:, 4][reference[:, 4] > 0]
    if np.maximum(were - least, 0).sum() < SPREAD * were.sum():
        least -= MARGIN
    rows = max(len(output), len(reference))

    def ranked(objects: Output) -> NDArray[np.floating]:
        counted = np.zeros((rows, 4))
        surer = np.where(objects[:, 4:5] > 0, np.maximum(objects[:, 4:5] - least, 0), 0)
        counted[: len(objects)] = objects[:, :4] * surer
        return np.sort(counted, axis=0)

    before = ranked(reference)
    return float(np.abs(ranked(output) - before).sum()) / max(float(np.abs(before).sum()), LEAST)


class Watch:
    """Looks, and knows whether the server is blind."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Output]],
        head: Head,
        is_busy: Callable[[], bool],
        interval_s: float,
        give_up: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        looked: Callable[[bool], None] = lambda _sees: None,
    ) -> None:
        self._look = look
        self._head = head
        self._is_busy = is_busy
        self._interval_s = interval_s
        self.give_up = give_up  # whose process it is may say what that means
        self._looked = looked
        self._sleep = sleep
        self._reference: Output | None = None
        self.failed = 0

    @property
    def blind(self) -> bool:
        """Say whether the last look failed."""
        return self.failed > 0

    async def run(self) -> None:
        """Watch until cancelled, or until there is nothing left to hope for."""
        await self._judge()
        passed_over = 0
        while self.failed < BLIND_LOOKS:
            await self._sleep(LOOK_AGAIN_S if self.blind else self._interval_s)
            if self._is_busy() and not self.blind and passed_over < BUSY_ROUNDS:
                passed_over += 1
                continue
            passed_over = 0
            await self._judge()
        self.give_up()

    async def _judge(self) -> None:
        sees = await self._sees()
        self._looked(sees)
        if sees:
            if self.blind:
                log.warning("sees again")
            self.failed = 0
        else:
            self.failed += 1

    async def _sees(self) -> bool:
        try:
            output = await asyncio.wait_for(self._look(), LOOK_TIMEOUT_S)
        except Exception as error:  # told: whatever the runtime raises, it does not see
            log.error("blind", extra={"reason": f"{type(error).__name__}: {error}"})
            return False
        # The first output that came is like itself, unless its numbers are none.
        reference = output if self._reference is None else self._reference
        if not seen_alike(output, reference, self._head):
            log.error("blind", extra={"reason": "the probe picture's output is not what it was"})
            return False
        self._reference = reference
        return True
