"""The markers of a JPEG: what a picture says of itself before it is decoded; pure.

Source: ITU T.81, annex B.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

from yoloserve.errors import InvalidImage

FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # tables have those three numbers
SCAN, END, EXIF = 0xDA, 0xD9, 0xE1
BARE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})  # markers that have no length
# A decoder goes over all blocks of a picture for each scan, and some 20 bytes make one. libjpeg's
# own progressions have 10, and 18 for four colours; the longest that optimisers write, 16.
IN_SCANS = np.array(
    [0x00, 0xFF, *range(0xD0, 0xD8), 0xC4, 0xCC, *range(0xD9, 0xDE), *range(0xE0, 0xF0), 0xFE],
    np.uint8,
)
"""What may follow a byte of 0xFF from the first scan on (ITU-T T.81, table B.1)."""

MOST_SCANS = 24
SCAN_BYTES, END_BYTES = bytes((0xFF, SCAN)), bytes((0xFF, END))
MOST_MARKERS = 4096  # before the first scan, and after; a colour profile takes up to 255
MOST_BETWEEN = 65_536  # bytes in all between the markers before the first scan: padding
LOOKED_AT_ONCE = 2**18  # of a scan: a search lets no other thread run
MARKER = re.compile(rb"\xff[^\x00\xff]")  # after any padding, and what is no marker
# Within a scan: what is neither a stuffed zero, nor padding, nor a restart.
MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the first scan."""

    width: int
    height: int
    exif: bytes  # a TIFF that tells how the picture was turned; empty when there is none
    first_scan: int  # where it begins


def head(jpeg: bytes) -> Head:
    """Read the markers before the picture; raise `ValueError` if there are no readable ones."""
    size, exif, position, between = None, b"", 2, MOST_BETWEEN
    for _ in range(MOST_MARKERS):
        if (found := MARKER.search(jpeg, position, position + between)) is None:
            break
        between -= found.start() - position
        marker, position = jpeg[found.end() - 1], found.end()
        if marker == SCAN and size:
            return Head(*size, exif, found.start())
        if marker in BARE:
            continue
        length = int.from_bytes(jpeg[position : position + 2])
        if length < 2 or marker in (SCAN, END):
            break
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", jpeg, position + 3)
            size = width, height
        elif marker == EXIF and not exif and jpeg.startswith(b"Exif\0\0", position + 2):
            exif = jpeg[position + 8 : position + length]
        position += length
    raise ValueError("no scan after the size of a picture")


def require_few_scans(jpeg: bytes, first: int) -> None:
    """Raise `InvalidImage` when decoding would go over the picture more often than encoders do.

    The bytes are counted first, which takes 0.1 ms: the same two in a second picture or a profile
    count as well, and only where there are too many are the markers followed one by one.
    """
    if seeming_scans(jpeg, first) > MOST_SCANS and scans(jpeg, first) > MOST_SCANS:
        raise InvalidImage(f"the image/jpeg has more than {MOST_SCANS} scans: encode it again")


def seeming_scans(jpeg: bytes, first: int) -> int:
    """Count the bytes that begin a scan, wherever they are; `bytes.count` takes far longer."""
    coded = np.frombuffer(jpeg, np.uint8)[first:]
    return int(np.count_nonzero((coded[:-1] == 0xFF) & (coded[1:] == SCAN)))


def scans(jpeg: bytes, first: int) -> int:
    """Count the scans up to the end marker, or to one too many; `first` is where one begins.

    Raises `InvalidImage` for a picture of more markers than encoders write: no more are followed.
    """
    count, position = 0, first
    for _ in range(MOST_MARKERS):
        if (position := _marker_in_scan(jpeg, position)) < 0 or jpeg[position - 1] == END:
            return count
        marker = jpeg[position - 1]
        count += marker == SCAN
        if count > MOST_SCANS:
            return count
        if marker >= 0xC0 and marker not in BARE:  # libjpeg goes by the length of what it knows
            position += int.from_bytes(jpeg[position : position + 2])
    raise InvalidImage(f"the image/jpeg has more than {MOST_MARKERS} markers: encode it again")


def _marker_in_scan(jpeg: bytes, position: int) -> int:
    """Find the next marker from here on, and return where it ends; -1 where there is none."""
    while position < len(jpeg):
        if found := MARKER_IN_SCAN.search(jpeg, position, position + LOOKED_AT_ONCE):
            return found.end()
        position += LOOKED_AT_ONCE - 1  # a marker has two bytes
    return -1


def has_stray_marker(jpeg: bytes, first: int) -> bool:
    """Tell whether a marker that no scan can hold, nor anything between two, follows the first."""
    coded = np.frombuffer(jpeg, np.uint8, offset=first)
    after = coded[1:][coded[:-1] == 0xFF]
    return not np.isin(after, IN_SCANS).all()


def has_end(jpeg: bytes, first: int) -> bool:
    """Tell whether the picture's end is marked: after its last scan, whatever follows it."""
    end = jpeg.rfind(END_BYTES)
    return end > first and jpeg.find(SCAN_BYTES, end) < 0
