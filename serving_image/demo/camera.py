"""What a camera adds: blur, exposure, noise and compression; boxes stay where they are."""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def take(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Return the image as a camera would deliver it; `strength` 0 adds next to nothing."""
    image = blurred(rng, image, strength)
    light = 1 + strength * rng.uniform(-0.35, 0.35)
    offset = strength * rng.uniform(-30, 30)
    seen = image.astype(np.float32) * np.float32(light) + np.float32(offset)
    if rng.random() < 0.5 * strength:
        grain = float(rng.uniform(2, 16)) * strength
        seen += rng.standard_normal(seen.shape, np.float32) * np.float32(grain)
    finished: Image = np.clip(seen, 0, 255).astype(np.uint8)
    if rng.random() < 0.5 * strength:
        return compressed(finished, int(rng.integers(25, 90)))
    return finished


def blurred(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Blur by bad focus or by motion, or not at all."""
    style = rng.random()
    scale = max(image.shape[:2]) / 320  # the same blur for large pictures, once made small
    if style < 0.3 * strength:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), scale * rng.uniform(0.4, 1.3)), np.uint8)
    if style < 0.4 * strength:
        length = round(scale * rng.uniform(2, 5)) | 1
        kernel = np.zeros((length, length), np.float32)
        if rng.random() < 0.5:
            kernel[length // 2] = 1 / length
        else:
            kernel[:, length // 2] = 1 / length
        return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)
    return image


def compressed(image: Image, quality: int) -> Image:
    """Return what is left after JPEG at `quality`."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
