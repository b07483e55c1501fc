"""The chunks of a PNG: only those that make its pixels are decoded, and no more than those; pure.

Source: PNG (third edition), and what libpng does with the rest.
"""

import struct
import zlib
from collections.abc import Sequence

from yoloserve.errors import InvalidImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Header, palette, pixels, end, and how the picture was turned. libpng unpacks texts and profiles,
# twice: 8 KB of them are 45 ms, a megabyte is six seconds. Of an animation the still one is seen.
# Of all but pixels only the first counts; for each other one libpng writes a line to stderr.
ONCE = frozenset({b"IHDR", b"PLTE", b"IEND", b"eXIf"})
EXIF_STARTS = b"II*\0", b"MM\0*"
END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
MOST_CHUNKS = 50_000  # encoders cut a picture into pieces of 8 KB and more
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by kind of colour
# Columns and rows of each pass of an interlaced picture: the first one, and from one to the next.
PASSES = (
    (0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)
)  # fmt: skip
DEFLATE_RATIO = 1032  # what a byte can unpack to, at most
SURPLUS = 2**26  # bytes that are unpacked in vain in 0.2 s: less is not looked for
PIECE = 4096


def size(png: bytes) -> tuple[int, int]:
    """Read width and height; raise `ValueError` or `struct.error`."""
    kind, width, height = struct.unpack_from(">4sII", png, 12)
    if kind != b"IHDR":
        raise ValueError("IHDR is not first")
    return width, height


def plain(png: bytes) -> bytes:
    """Return the PNG without what is not seen, its end marked; raise `InvalidImage` for a bomb.

    A chunk that is not as long as it says is refused as well: OpenCV takes memory for it before
    it reads it, 4 GB and two seconds for 33 bytes.
    """
    kept, position, ended = [(0, len(SIGNATURE))], len(SIGNATURE), False
    pixels, met = [], set[bytes]()
    for _ in range(MOST_CHUNKS):
        if ended or position == len(png):
            break
        if position + 12 > len(png):  # length, kind and checksum
            raise InvalidImage("the image/png is cut short")
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 12 + length
        if end > len(png):
            raise InvalidImage("the image/png is cut short")
        if kind == b"IDAT":
            kept.append((position, end))
            pixels.append(memoryview(png)[position + 8 : end - 4])
        elif kind in ONCE - met:
            met.add(kind)
            if kind != b"eXIf" or _is_exif(png[position + 4 : end]):
                kept.append((position, end))
        position, ended = end, kind == b"IEND"
    else:
        raise InvalidImage(f"the image/png has more than {MOST_CHUNKS} chunks")
    _require_no_surplus(pixels, _unpacked(png))
    if ended and sum(end - start for start, end in kept) == position:
        return png
    return b"".join(png[start:end] for start, end in kept) + (b"" if ended else END)


def _is_exif(chunk: bytes) -> bool:
    """Say whether how the picture was turned can be read there: else libpng says that it cannot."""
    (crc,) = struct.unpack_from(">I", chunk, len(chunk) - 4)
    return chunk.startswith(EXIF_STARTS, 4) and crc == zlib.crc32(memoryview(chunk)[:-4])


def _unpacked(png: bytes) -> int:
    """Say how many bytes the rows have, each with one for its filter."""
    try:
        width, height, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
        bits = depth * SAMPLES[kind]
    except (struct.error, KeyError):
        raise InvalidImage("the image/png has no readable header") from None
    if not interlaced:
        return int(height * (1 + -(-width * bits // 8)))
    passes = (
        (-(-(width - left) // across), -(-(height - top) // down))
        for left, across, top, down in PASSES
    )
    return sum(
        rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0 < rows
    )


def _require_no_surplus(pixels: Sequence[memoryview], unpacked: int) -> None:
    """Raise unless the pixels are all that is packed: libpng goes on to the end of it.

    A megabyte can hold a gigabyte behind the last row. To see that it does not takes to unpack it,
    once more than the decoder does: half as long again for a photograph.
    """
    if sum(map(len, pixels)) * DEFLATE_RATIO <= unpacked + SURPLUS:
        return
    unpacker, size = zlib.decompressobj(), 0
    try:
        for data in pixels:
            for at in range(0, len(data), PIECE):
                size += len(unpacker.decompress(data[at : at + PIECE]))
                if size > unpacked + PIECE * DEFLATE_RATIO:
                    raise InvalidImage("the image/png holds more than its pixels")
                if unpacker.eof:
                    return
    except zlib.error as error:
        raise InvalidImage(f"the image/png is damaged: {error}") from None
