"""The classes: what each shape looks like, as closed contours around the origin. Pure."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Contour = npt.NDArray[np.float64]  # (N, 2), x y, closed, within about one unit of the origin
Contours = list[Contour]  # a second contour inside the first is a hole

FINE = 48  # points on a whole circle: finer than a pixel up to a radius of 300


def arc(start: float, end: float, points: int, radius: float = 1.0) -> Contour:
    """Return points on a circle around the origin, from `start` to `end` (radians)."""
    angles = np.linspace(start, end, points)
    return radius * np.stack((np.cos(angles), np.sin(angles)), 1)


def polygon(corners: int) -> Contour:
    """Return a regular polygon with one corner up."""
    return arc(-np.pi / 2, 1.5 * np.pi, corners + 1)[:-1]


def circle(_rng: np.random.Generator) -> Contours:
    """A full disc."""
    return [arc(0, 2 * np.pi, FINE)]


def square(_rng: np.random.Generator) -> Contours:
    """Four equal sides."""
    return [polygon(4)]


def triangle(_rng: np.random.Generator) -> Contours:
    """Three equal sides."""
    return [polygon(3)]


def pentagon(_rng: np.random.Generator) -> Contours:
    """Five equal sides: easily taken for a hexagon when small."""
    return [polygon(5)]


def hexagon(_rng: np.random.Generator) -> Contours:
    """Six equal sides: easily taken for a pentagon, or a circle, when small."""
    return [polygon(6)]


def star(rng: np.random.Generator) -> Contours:
    """Five points."""
    corners = polygon(10)
    corners[1::2] *= rng.uniform(0.38, 0.52)
    return [corners]


def cross(rng: np.random.Generator) -> Contours:
    """A plus sign with four equal arms."""
    a = rng.uniform(0.24, 0.38)
    right = [(a, -1), (a, -a), (1, -a)]
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    arms = [np.array(right) @ np.linalg.matrix_power(quarter, turn) for turn in range(4)]
    return [np.concatenate(arms)]


def heart(_rng: np.random.Generator) -> Contours:
    """Two lobes and a tip."""
    t = np.linspace(0, 2 * np.pi, FINE, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack((x, -y - 2.5), 1) / 16]


def ring(rng: np.random.Generator) -> Contours:
    """A disc with a hole."""
    return [arc(0, 2 * np.pi, FINE), arc(0, 2 * np.pi, FINE, rng.uniform(0.5, 0.75))]


def crescent(rng: np.random.Generator) -> Contours:
    """A disc with a bite out of its right side, as the young moon."""
    half = rng.uniform(0.8, 1.1)  # the horns lie at plus and minus this angle
    horn_x, horn_y = np.cos(half), np.sin(half)
    centre = horn_x + rng.uniform(0.1, 0.35)  # of the bite, on the x axis
    radius = float(np.hypot(centre - horn_x, horn_y))
    opening = np.arctan2(horn_y, horn_x - centre)
    outer = arc(half, 2 * np.pi - half, FINE)
    bite = arc(2 * np.pi - opening, opening, FINE, radius) + np.array([centre, 0.0])
    return [np.concatenate((outer, bite))]


def arrow(rng: np.random.Generator) -> Contours:
    """A shaft and a head, to the right."""
    neck, shaft = rng.uniform(-0.1, 0.2), rng.uniform(0.18, 0.32)
    wing = rng.uniform(0.6, 0.8)
    top = [(-1, -shaft), (neck, -shaft), (neck, -wing), (1, 0)]
    return [np.array([*top, *((x, -y) for x, y in reversed(top[:-1]))], float)]


def drop(rng: np.random.Generator) -> Contours:
    """Round below, a point above."""
    t = np.linspace(0, 2 * np.pi, FINE, endpoint=False)
    width = np.sin(t) * np.sin(t / 2) ** rng.uniform(1.3, 2.0)
    return [np.stack((width, -np.cos(t)), 1)]


SHAPES: dict[str, Callable[[np.random.Generator], Contours]] = {
    shape.__name__: shape
    for shape in (
        circle,
        square,
        triangle,
        pentagon,
        hexagon,
        star,
        cross,
        heart,
        ring,
        crescent,
        arrow,
        drop,
    )
}
NAMES = tuple(SHAPES)
