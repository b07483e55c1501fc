"""Traffic as cameras see it: objects stay in view, so what is missed once is missed again.

Objects come by Poisson, stay for four seconds, and the new model keeps an *object* with a chance of
its own, so that its frames resemble each other (intraclass correlation 0.67). Cameras differ, and
with `drift` so does the whole scene from minute to minute.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK_S, LOOK_S = 5, 10
_STAYS_S = 4.0
_CAMERAS_DIFFER = 0.3  # standard deviation of the logit
_MEMORY = 0.95  # of the drift, from block to block: some 100 s
_STICKS = 0.5  # a + b of the Beta distribution that an object's chance is drawn from


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes in."""

    cameras: int
    fps: int
    objects: float = 3.0  # in a frame

    @property
    def per_second(self) -> int:
        """Frames a second."""
        return self.cameras * self.fps


def looks(
    rng: np.random.Generator,
    traffic: Traffic,
    *,
    releases: int,
    seconds: int,
    keeps: float,
    drift: float = 0.0,
) -> tuple[Ints, Ints]:
    """Return the objects that were kept, and all, by release and look of 10 s."""
    blocks = seconds // BLOCK_S
    arrivals = traffic.cameras * traffic.objects / _STAYS_S * BLOCK_S
    counts = rng.poisson(arrivals, (releases, blocks))
    where = np.repeat(np.arange(releases * blocks), counts.ravel())
    frames = 1 + rng.poisson(traffic.fps * rng.exponential(_STAYS_S, where.size))
    chance = _chances(rng, traffic, where, (releases, blocks), keeps, drift)
    sticky = rng.beta(chance * _STICKS, (1 - chance) * _STICKS)
    first = (frames + 1) // 2  # about half of an object's frames are in the block after
    kept = np.zeros((releases, blocks), np.int64)
    all_ = np.zeros((releases, blocks), np.int64)
    for part, later in ((first, 0), (frames - first, 1)):
        found = rng.binomial(part, sticky)
        for sums, amounts in ((kept, found), (all_, part)):
            block = np.bincount(where, amounts, releases * blocks).reshape(releases, blocks)
            sums[:, later:] += block[:, : blocks - later].astype(np.int64)
    return _by_look(kept), _by_look(all_)


def _chances(
    rng: np.random.Generator,
    traffic: Traffic,
    where: Ints,
    shape: tuple[int, int],
    keeps: float,
    drift: float,
) -> Floats:
    """Return each object's chance to be kept: by its camera, and by the hour."""
    releases, blocks = shape
    cameras = rng.normal(0, _CAMERAS_DIFFER, (releases, traffic.cameras))
    shift = cameras[where // blocks, rng.integers(0, traffic.cameras, where.size)]
    if drift:
        shift = shift + _drifting(rng, shape, drift).ravel()[where]
    logit = np.log(keeps / (1 - keeps))
    chance = 1 / (1 + np.exp(-(logit + shift)))
    scaled: Floats = np.clip(chance * (keeps / float(chance.mean())), 1e-4, 1 - 1e-4)
    return scaled


def _drifting(rng: np.random.Generator, shape: tuple[int, int], drift: float) -> Floats:
    drifts = np.zeros(shape)
    drifts[:, 0] = rng.normal(0, drift, shape[0])
    for block in range(1, shape[1]):
        step = rng.normal(0, drift * np.sqrt(1 - _MEMORY**2), shape[0])
        drifts[:, block] = _MEMORY * drifts[:, block - 1] + step
    return drifts


def _by_look(blocks: Ints) -> Ints:
    pairs = LOOK_S // BLOCK_S
    whole = blocks.shape[1] // pairs * pairs
    summed: Ints = blocks[:, :whole].reshape(blocks.shape[0], -1, pairs).sum(axis=2)
    return summed


def failures(
    rng: np.random.Generator, per_look: int, *, shape: tuple[int, int], rate: float
) -> Ints:
    """Return failed requests by release and look: they come in bursts."""
    rates = np.minimum(rate * rng.gamma(2, 0.5, shape), 1)
    counted: Ints = rng.binomial(per_look, rates)
    return counted


def times(
    rng: np.random.Generator,
    *,
    looks: int,
    stable: int,
    canary: int,
    slower: float = 1.0,
    tail: float = 0.0,
) -> tuple[Ints, Ints]:
    """Return answers by look and bucket, of both: load swings for both, and jitters for each.

    tail: the share of the canary's answers that take three times as long.
    """
    swing = rng.normal(0, 0.15, looks)
    both = []
    for count, factor, late in ((stable, 1.0, 0.0), (canary, slower, tail)):
        shift = swing + rng.normal(0, 0.03, looks) + np.log(factor)
        log_ms = rng.normal(np.log(30.0), 0.35, (looks, count)) + shift[:, None]
        log_ms += np.log(3.0) * (rng.random((looks, count)) < late)
        bucket = np.clip(np.ceil(log_ms / np.log(1.1)), 0, 98).astype(np.int64)
        flat = (bucket + 99 * np.arange(looks)[:, None]).ravel()
        both.append(np.bincount(flat, minlength=99 * looks).reshape(looks, 99))
    return both[0], both[1]
