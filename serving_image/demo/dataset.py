"""The training set: drawn once into memory, then turned, mirrored and recoloured for each use."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from demo.geometry import Image, letterbox
from demo.pictures import DENSE, draw

PLAIN, HELD_BACK, DENSE_SPLIT = 1, 2, 5  # splits: their pictures share no seed
DENSE_SIDE = 192
Boxes = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture in the network's square."""

    image: Image
    boxes: Boxes
    classes: Classes


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures (B, side, side, 3) RGB uint8 and their objects, padded to the longest list."""

    images: Image
    boxes: Boxes  # (B, M, 4)
    classes: Classes  # (B, M)
    known: npt.NDArray[np.bool_]  # (B, M)


def plain_sample(index: int) -> Sample:
    """Draw a picture like the held-back ones, fitted into the network's square."""
    picture = draw(PLAIN, index)
    image, fit = letterbox(picture.image)
    return Sample(image, fit.into(picture.boxes), picture.classes)


def dense_sample(index: int) -> Sample:
    """Draw a small picture full of objects: many times more to learn from for the same work."""
    picture = draw(DENSE_SPLIT, index, DENSE, (DENSE_SIDE, DENSE_SIDE))
    return Sample(picture.image, picture.boxes, picture.classes)


def drawn(sample: Callable[[int], Sample], count: int) -> list[Sample]:
    """Draw the first `count` pictures of a kind, on all cores."""
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        return list(workers.map(sample, range(count), chunksize=50))


def batches(
    samples: list[Sample], rng: np.random.Generator, count: int, size: int
) -> Iterator[Batch]:
    """Yield `count` pictures in batches, passing through the whole set before repeating it."""
    passes = -(-count // len(samples))
    order = np.concatenate([rng.permutation(len(samples)) for _ in range(passes)])[:count]
    for start in range(0, count - size + 1, size):
        chosen = order[start : start + size]
        yield collate([varied(samples[index], rng) for index in chosen])


def varied(sample: Sample, rng: np.random.Generator) -> Sample:
    """Turn, mirror and recolour a square picture in ways that change no class."""
    image, boxes = sample.image, sample.boxes.copy()
    side = len(image)
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes[:, [0, 2]] = side - boxes[:, [2, 0]]
    if rng.random() < 0.5:
        image = image[::-1]
        boxes[:, [1, 3]] = side - boxes[:, [3, 1]]
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
        boxes = boxes[:, [1, 0, 3, 2]]
    image = image[:, :, rng.permutation(3)]
    if rng.random() < 0.3:
        image = 255 - image
    return Sample(np.ascontiguousarray(image, np.uint8), boxes, sample.classes)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples, padding their objects with zeros that are not `known`."""
    most = max(1, *(len(sample.classes) for sample in samples))
    boxes = np.zeros((len(samples), most, 4), np.float32)
    classes = np.zeros((len(samples), most), np.int64)
    known = np.zeros((len(samples), most), np.bool_)
    for row, sample in enumerate(samples):
        count = len(sample.classes)
        boxes[row, :count], classes[row, :count] = sample.boxes, sample.classes
        known[row, :count] = True
    return Batch(np.stack([sample.image for sample in samples]), boxes, classes, known)
