"""Writes TIFFs of every sort, the directory first; what encoders at hand write is only one sort."""

import struct
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DEFLATE = 8  # of tag 259
SEPARATE = 2  # of tag 284
ADDRESSES = 273, 324


def tiff(
    samples: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    order: Literal["<", ">"] = "<",
    block: tuple[int, int] | None = None,
    tiled: bool = False,
    tags: dict[int, int | Sequence[int]] | None = None,
) -> bytes:
    """Write samples of shape (H, W) or (H, W, C), as they are to be stored.

    block: height and width of a tile, or the height of a strip and the picture's width. tags: by
    number, in addition to or in place of those that follow from the rest; 259 and 284 are honoured.
    """
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, -1)
    channels = samples.shape[2]
    down, across = block or (height, width)
    told: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: [samples.dtype.itemsize * 8] * channels,
        259: 1,
        262: 2 if channels >= 3 else 1,  # RGB; grey
        277: channels,
        284: 1,
        **({322: across, 323: down} if tiled else {278: down}),
        **(tags or {}),
    }
    stored = samples.astype(samples.dtype.newbyteorder(order))
    separate = told[284] == SEPARATE
    planes = [stored[:, :, c : c + 1] for c in range(channels)] if separate else [stored]
    parts = []
    for plane in planes:
        for y in range(0, height, down):
            for x in range(0, width, across):
                part = plane[y : y + down, x : x + across]
                if tiled:
                    missing = (0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)
                    part = np.pad(part, missing)
                raw = part.tobytes()
                parts.append(zlib.compress(raw) if told[259] == DEFLATE else raw)
    return written(told, parts, order, tiled)


def written(
    tags: dict[int, int | Sequence[int]], parts: list[bytes], order: str, tiled: bool
) -> bytes:
    """Write tags, and the parts that tiles or strips are made of."""
    addresses, sizes = (324, 325) if tiled else (273, 279)
    tags = {addresses: [0] * len(parts), sizes: [len(part) for part in parts]} | tags
    values = {tag: [told] if isinstance(told, int) else list(told) for tag, told in tags.items()}
    kinds = {tag: "I" if tag in ADDRESSES or max(values[tag]) > 65535 else "H" for tag in values}
    lengths = {tag: struct.calcsize(kinds[tag]) * len(values[tag]) for tag in values}
    outside = 8 + 2 + 12 * len(values) + 4
    data = outside + sum(length for length in lengths.values() if length > 4)
    if not any(values[addresses]):
        values[addresses] = np.cumsum([data] + [len(part) for part in parts[:-1]]).tolist()
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries, more = struct.pack(f"{order}H", len(values)), b""
    for tag in sorted(values):
        packed = struct.pack(f"{order}{len(values[tag])}{kinds[tag]}", *values[tag])
        field = packed.ljust(4, b"\0")
        if len(packed) > 4:
            field = struct.pack(f"{order}I", outside + len(more))
            more += packed
        kind = 3 if kinds[tag] == "H" else 4
        entries += struct.pack(f"{order}HHI", tag, kind, len(values[tag])) + field
    whole = head + struct.pack(f"{order}I", 8) + entries + bytes(4) + more
    return whole + b"".join(parts)
