"""Colours, textures, backgrounds, and clutter that must not be taken for an object."""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Paint = npt.NDArray[np.float32]  # (H, W, 3) BGR, 0..255
Colour = npt.NDArray[np.float64]  # (3,) BGR

LETTERS = "AEFHKMNRWZ2457"  # none that looks like a ring, a cross or a triangle


def random_colour(rng: np.random.Generator) -> Colour:
    """Return any colour: vivid ones as often as pale and grey ones."""
    colour = rng.uniform(0, 255, 3)
    return colour if rng.random() < 0.75 else np.full(3, colour.mean()) + rng.normal(0, 8, 3)


def colour_unlike(rng: np.random.Generator, other: Colour, distance: float = 75) -> Colour:
    """Return a colour at least `distance` away from `other`, so that an edge can be seen."""
    best = random_colour(rng)
    for _ in range(12):
        if np.linalg.norm(best - other) >= distance:
            break
        best = random_colour(rng)
    else:
        best = np.where(other > 127, other - 100, other + 100)
    return best


def ramp(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Return a ramp (H, W, 1) from 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(angle))
    plane = y[:, None] + x[None, :]
    span = max(float(np.ptp(plane)), 1e-3)
    rising: Paint = ((plane - plane.min()) / np.float32(span))[..., None]
    return rising


def waves(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Return stripes (H, W, 1) between 0 and 1, soft or hard."""
    turns = rng.uniform(2, 14)
    wave = 0.5 + 0.5 * np.sin(ramp(rng, height, width) * np.float32(2 * np.pi * turns))
    stripes: Paint = (wave > 0.5).astype(np.float32) if rng.random() < 0.5 else wave
    return stripes


def clouds(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> Paint:
    """Return smooth random blobs (H, W, channels) between 0 and 1."""
    cells = int(rng.integers(2, 12))
    coarse = rng.random((cells, cells, channels), np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    blobs: Paint = np.clip(np.asarray(smooth, np.float32), 0, 1)
    return blobs.reshape(height, width, channels)


def mix(share: Paint, first: Colour, second: Colour) -> Paint:
    """Blend two colours by a map (H, W, 1)."""
    blended: Paint = share * np.float32(second) + (1 - share) * np.float32(first)
    return blended


def texture(rng: np.random.Generator, colour: Colour, height: int, width: int) -> Paint:
    """Return a fill that is `colour` on the whole: plain, shaded, striped or speckled."""
    style = rng.random()
    near = np.clip(colour + rng.normal(0, 28, 3), 0, 255)
    if style < 0.45:
        return np.broadcast_to(np.float32(colour), (height, width, 3))
    if style < 0.7:
        return mix(ramp(rng, height, width), colour, near)
    if style < 0.82:
        return mix(waves(rng, height, width), colour, near)
    if style < 0.92:
        return mix(clouds(rng, height, width, 1), colour, near)
    grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(5, 25))
    return np.float32(colour) + grain


def paint(rng: np.random.Generator, width: int, height: int) -> Image:
    """Paint a background."""
    style = rng.random()
    first, second = random_colour(rng), random_colour(rng)
    if style < 0.2:
        canvas = mix(ramp(rng, height, width), first, second)
    elif style < 0.35:
        canvas = mix(waves(rng, height, width), first, first + rng.normal(0, 40, 3))
    elif style < 0.55:
        canvas = mix(clouds(rng, height, width, 1), first, second)
    elif style < 0.75:
        canvas = clouds(rng, height, width) * 255
    else:
        canvas = texture(rng, first, height, width)
    if rng.random() < 0.4:
        canvas = canvas + (clouds(rng, height, width, 1) - 0.5) * np.float32(rng.uniform(20, 120))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def clutter(rng: np.random.Generator, image: Image, count: int) -> None:
    """Draw `count` things that are no objects: lines, open curves, letters, thin ellipses."""
    height, width = image.shape[:2]
    for _ in range(count):
        colour = tuple(float(value) for value in random_colour(rng))
        thick = int(rng.integers(1, max(2, height // 60) + 1))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        style = rng.random()
        if style < 0.35:
            end = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.line(image, (x, y), end, colour, thick, cv2.LINE_AA)
        elif style < 0.6:
            steps = rng.normal(0, height / 8, (int(rng.integers(3, 6)), 2)).cumsum(0) + np.array(
                [x, y]
            )
            cv2.polylines(image, [steps.astype(np.int32)], False, colour, thick, cv2.LINE_AA)
        elif style < 0.75:
            axes = (int(rng.uniform(0.05, 0.3) * height), int(rng.uniform(0.05, 0.3) * height))
            start = int(rng.integers(360))
            stop = start + int(rng.integers(40, 150))
            cv2.ellipse(image, (x, y), axes, 0, start, stop, colour, thick, cv2.LINE_AA)
        elif style < 0.9:
            letter = LETTERS[rng.integers(len(LETTERS))]
            scale = float(rng.uniform(0.6, 2.5)) * height / 320
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(image, letter, (x, y), font, scale, colour, thick + 1, cv2.LINE_AA)
        else:
            long = rng.uniform(0.08, 0.3) * height
            axes = (int(long), int(max(long * rng.uniform(0.08, 0.3), 1)))
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(image, (x, y), axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
