"""The surest places of an output that stayed where it was computed, on a GPU; pure.

A whole output is some 2.5 MB a picture, of which a handful of places pass any threshold. So the
device picks the surest, whatever anybody's threshold is, and the whole is fetched only for who asks
for more than it picked: what is found is the same either way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 1024  # places; a crowded street has 300 above the usual threshold

# Columns. The key is what has to pass: a place's score, and its objectness where a head has one.
PLACE, KEY, SCORE, CLASS, BOX = 0, 1, 2, 3, slice(4, 8)
COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Surest:
    """The surest places of one image's output, surest first, and how to have all of it."""

    rows: NDArray[np.float32]  # (places, COLUMNS); boxes as the head writes them
    whole: Callable[[], NDArray[np.float32]]
    """Fetches the output itself; to be called before the next batch runs on the same lane."""

    def above(self, confidence: float) -> NDArray[np.float32] | None:
        """Return the rows that pass, in the order of their places; none if there may be more."""
        passing = self.rows[:, KEY] > confidence
        if passing.all():
            return None
        sure = self.rows[passing]
        return sure[np.argsort(sure[:, PLACE])]
