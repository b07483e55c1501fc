"""Writes pictures that cost much to decode, and those they are made of."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fuzz.tiffs import written

SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + bytes(10)  # of a progressive JPEG


def with_scans(jpeg: bytes, more: int) -> bytes:
    """Put so many scans before the end of a JPEG: 20 bytes each."""
    return jpeg[:-2] + SCAN * more + jpeg[-2:]


def with_comments(jpeg: bytes, more: int) -> bytes:
    """Put so many comments before the end of a JPEG that each look like two scans."""
    return jpeg[:-2] + b"\xff\xfe\x00\x06\xff\xda\xff\xda" * more + jpeg[-2:]


def tiff_of_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """Put a JPEG of this size into a TIFF, as its only strip."""
    tags: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: [8, 8, 8],
        259: 7,  # JPEG
        262: 6,  # YCbCr
        277: 3,
        278: height,
        284: 1,
    }
    return written(tags, [jpeg], "<", tiled=False)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Write one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    image: NDArray[np.uint8],
    *,
    before: bytes = b"",
    after: bytes = b"",
    surplus: int = 0,
    pieces: int = 1,
    interlaced: int = 0,
) -> bytes:
    """Write a BGR picture with chunks around its pixels, and zeros packed behind the last row."""
    height, width = image.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(image[:, :, ::-1]))
    data = zlib.compress(rows + bytes(surplus), 9)
    step = -(-len(data) // pieces)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced))
    pixels = b"".join(chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND", b"")


def apng(image: NDArray[np.uint8], frames: int) -> bytes:
    """Write an animation of which every frame but the first is black."""
    height, width = image.shape[:2]
    control = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 10, 0, 0)
    black = zlib.compress(bytes(height * (1 + 3 * width)))
    start = chunk(b"acTL", struct.pack(">II", frames + 1, 0))
    start += chunk(b"fcTL", struct.pack(">I", 0) + control)
    rest = b"".join(
        chunk(b"fcTL", struct.pack(">I", 2 * n + 1) + control)
        + chunk(b"fdAT", struct.pack(">I", 2 * n + 2) + black)
        for n in range(frames)
    )
    return png(image, before=start, after=rest)
