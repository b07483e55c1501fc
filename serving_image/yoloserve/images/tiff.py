"""The first directory of a TIFF: what a picture says of itself before it is decoded; pure.

An EXIF block is such a directory, too. OpenCV's libtiff decodes it. Own code, for what is looked at
here is looked at before a decoder is: tifffile reads LZW and JPEG with imagecodecs (80 MB), and
Pillow (17 MB) has no 16-bit planes; the image is 691 of 700 MB. Source: TIFF, revision 6.0.
"""

import enum
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from yoloserve.errors import InvalidImage, UnsupportedMediaType
from yoloserve.images import jpeg

ORDER_OF = {b"II*\0": "<", b"MM\0*": ">"}
BIG = b"II+\0", b"MM\0+"  # BigTIFF, with addresses of 64 bits
MOST_ENTRIES = 1024  # writers make some twenty; a decoder compares each with each
MOST_IN_BLOCK = 2**22  # pixels of a tile or strip that is larger than its picture
MOST_BLOCKS = 200_000  # tiles of 16 x 16 in a frame of 8K video are fewer
MOST_SAMPLES = 4
ALL_ROWS = 2**32 - 1


class Tag(enum.IntEnum):
    """What an entry tells."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_SIZES = 279
    PLANES = 284
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339


NUMBERS = {1: "u1", 3: "u2", 4: "u4"}  # the types of a TIFF that are whole numbers
REDUCED = 1  # bit of SUBFILE
SEPARATE = 2  # of PLANES: one after the other
RGB, PALETTE, CMYK = 2, 3, 5  # of PHOTOMETRIC; grey is less
UNSIGNED = {1, 4}  # of SAMPLE_FORMAT; 4 says "undefined"
BITS = {1, 2, 4, 8, 16}
FEW_BITS = {(1, 0), (1, 1), (1, PALETTE), (4, PALETTE)}  # bits and PHOTOMETRIC
UNMIXED = 2  # of EXTRA_SAMPLES: transparency that the colours do not have in them yet
JPEG = 7
DEFLATE = {8, 32946}
# None, fax (2 to 4), LZW, JPEG, PackBits. Of what it does not know the decoder makes black.
COMPRESSIONS = {1, 2, 3, 4, 5, 7, 32773} | DEFLATE


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries that describe the first picture."""

    tiff: bytes
    order: str
    entries: Mapping[int, tuple[int, int, int]]  # by tag: type, count, and where the value is

    @classmethod
    def first(cls, tiff: bytes) -> Self:
        """Read it as far as it is there; raises `ValueError` or `struct.error`."""
        if (order := ORDER_OF.get(tiff[:4])) is None:
            raise ValueError("no TIFF")
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        if count > MOST_ENTRIES:
            raise ValueError(f"{count} entries")
        raw = tiff[at + 2 : at + 2 + 12 * count]
        entries: dict[int, tuple[int, int, int]] = {}
        fields = struct.iter_unpack(f"{order}HHI4x", raw[: len(raw) // 12 * 12])
        for number, (tag, kind, values) in enumerate(fields):
            entries.setdefault(tag, (kind, values, at + 2 + 12 * number + 8))
        return cls(tiff, order, entries)

    def numbers(self, tag: Tag, default: int | None = None) -> NDArray[np.unsignedinteger]:
        """Return the values of an entry; raises `ValueError` or `struct.error`."""
        if default is not None and tag not in self.entries:
            return np.array([default], np.uint32)
        dtype, count, at = self._place(tag)
        return np.frombuffer(self.tiff, dtype, count, at)

    def number(self, tag: Tag, default: int | None = None) -> int:
        """Return the one value of an entry."""
        (number,) = self.numbers(tag, default)
        return int(number)

    def with_numbers(self, tag: Tag, number: int) -> bytes:
        """Return the TIFF with this in the place of each value of an entry."""
        dtype, count, at = self._place(tag)
        changed = bytearray(self.tiff)
        np.frombuffer(changed, dtype, count, at)[:] = number
        return bytes(changed)

    def _place(self, tag: Tag) -> tuple[np.dtype[Any], int, int]:
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        if kind not in NUMBERS or count == 0:
            raise ValueError(f"{tag.name} is missing, or no number")
        dtype = np.dtype(self.order + NUMBERS[kind])
        if count * dtype.itemsize > 4:
            (at,) = struct.unpack_from(f"{self.order}I", self.tiff, at)
        return dtype, count, at


def orientation(tiff: bytes) -> int:
    """Tell how a picture is stored, 1 to 8; 1 when that is not said, or odd."""
    try:
        number = Directory.first(tiff).number(Tag.ORIENTATION, 1)
    except (struct.error, ValueError):
        return 1
    return number if 1 <= number <= 8 else 1


def size(tiff: bytes) -> tuple[int, int]:
    """Read width and height of the first picture, and see that it is of a sort that is decoded.

    A decoder takes memory for whole tiles and strips, and for a list of them, before it looks at
    what they hold: those have to be in proportion. Raises `InvalidImage`, `UnsupportedMediaType`,
    `ValueError` or `struct.error`.
    """
    directory = Directory.first(tiff)
    width, height = directory.number(Tag.WIDTH), directory.number(Tag.HEIGHT)
    if directory.number(Tag.SUBFILE, 0) & REDUCED:
        raise UnsupportedMediaType(
            "the image/tiff begins with a reduced picture, as a camera's raw files do: develop it"
        )
    bits, kinds = directory.numbers(Tag.BITS, 1), directory.numbers(Tag.SAMPLE_FORMAT, 1)
    if (compression := directory.number(Tag.COMPRESSION, 1)) not in COMPRESSIONS:
        raise UnsupportedMediaType(
            f"the image/tiff is compressed by {compression}: use none, LZW, deflate or JPEG"
        )
    if not (set(bits.tolist()) <= BITS and set(kinds.tolist()) <= UNSIGNED):
        raise UnsupportedMediaType(
            "the image/tiff has numbers other than whole ones of up to 16 bits: convert it"
        )
    across, down = _block(directory, width, height)
    if across * down > max(width * height, MOST_IN_BLOCK):
        raise InvalidImage(f"the image/tiff has tiles or strips of {across} x {down} pixels")
    if (samples := directory.number(Tag.SAMPLES, 1)) > MOST_SAMPLES:
        raise UnsupportedMediaType(f"the image/tiff has {samples} numbers for each pixel")
    planes = samples if directory.number(Tag.PLANES, 1) == SEPARATE else 1
    blocks = -(-width // across) * -(-height // down) * planes
    if blocks > MOST_BLOCKS:
        raise InvalidImage(f"the image/tiff has more than {MOST_BLOCKS} tiles or strips")
    if (listed := len(_offsets(directory))) < blocks:
        raise InvalidImage(f"the image/tiff lacks some of its {blocks} tiles or strips")
    if listed > blocks:  # nobody decodes them, but each is looked through below
        raise InvalidImage(
            f"the image/tiff lists {listed} tiles or strips; its picture has {blocks}"
        )
    uneven = width % across > 0 and planes == 1
    _require_known(directory, int(bits.max()), samples, uneven=uneven)
    return width, height


def _require_known(directory: Directory, bits: int, samples: int, *, uneven: bool) -> None:
    """Raise `UnsupportedMediaType` for what OpenCV has no decoder for, or a wrong one.

    uneven: the last tile of a row goes beyond the picture, and holds all numbers of its pixels.
    OpenCV takes the rows of such a tile for as long as what is seen of them, in all 16-bit pictures
    but RGB, and in grey ones with more than one number for each pixel.
    """
    tiled = Tag.TILE_WIDTH in directory.entries
    meaning = directory.number(Tag.PHOTOMETRIC, RGB)
    if meaning == CMYK and bits > 8:
        raise UnsupportedMediaType("the image/tiff is CMYK of more than 8 bits: convert it")
    if bits < 8 and (tiled or (bits, meaning) not in FEW_BITS):
        raise UnsupportedMediaType(
            f"the image/tiff has {bits}-bit numbers{' in tiles' if tiled else ''}: convert it to 8"
        )
    if tiled and uneven and meaning != RGB and (bits > 8 or (meaning < RGB and samples > 1)):
        raise UnsupportedMediaType(
            "the image/tiff has tiles of 16 bits, or with transparency, that go beyond its right "
            "edge: write it in strips, or as RGB"
        )


def as_stored(tiff: bytes) -> bytes:
    """Return the TIFF as one that is neither turned nor mixed with its transparency when decoded.

    libtiff turns each tile by itself, and darkens colours by their transparency. Raises
    `ValueError` or `struct.error`.
    """
    directory = Directory.first(tiff)
    if (directory.numbers(Tag.ORIENTATION, 1) != 1).any():
        directory = Directory.first(directory.with_numbers(Tag.ORIENTATION, 1))
    if (directory.numbers(Tag.EXTRA_SAMPLES, 0) == UNMIXED).any():
        return directory.with_numbers(Tag.EXTRA_SAMPLES, 0)
    return directory.tiff


def require_whole(tiff: bytes) -> None:
    """Raise unless every tile or strip is there, and those with a checksum are intact.

    What is not, the decoder makes up in black, and does not tell. Of all compressions only deflate
    has a checksum: damage inside of others stays unseen. Raises `InvalidImage`, `ValueError` or
    `struct.error`.
    """
    directory = Directory.first(tiff)
    offsets, sizes = _offsets(directory), _sizes(directory)
    if len(offsets) != len(sizes) or (offsets.astype(np.int64) + sizes > len(tiff)).any():
        raise InvalidImage("the image/tiff is cut short")
    if int(sizes.sum(dtype=np.int64)) > len(tiff):  # each is read as often as it is listed
        raise InvalidImage("the image/tiff has tiles or strips that lie on each other")
    # Of blocks of one size, none of which is read twice, it is the mean that counts.
    scans = jpeg.seeming_scans(tiff, 0) if directory.number(Tag.COMPRESSION, 1) == JPEG else 0
    if scans > jpeg.MOST_SCANS * len(offsets):
        raise InvalidImage(f"the image/tiff has {scans} scans of JPEG: encode it again")
    if directory.number(Tag.COMPRESSION, 1) in DEFLATE:
        across, down = _block(directory, directory.number(Tag.WIDTH), directory.number(Tag.HEIGHT))
        samples, bits = directory.number(Tag.SAMPLES, 1), int(directory.numbers(Tag.BITS, 1).max())
        most = -(-across * samples * bits // 8) * down
        for at, size in zip(offsets.tolist(), sizes.tolist(), strict=True):
            _require_intact(tiff[at : at + size], most)


def _require_intact(deflated: bytes, most: int) -> None:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(deflated, most + 1)
    except zlib.error as error:
        raise InvalidImage(f"the image/tiff is damaged: {error}") from None
    if not unpacker.eof:
        raise InvalidImage("the image/tiff has a tile or strip that ends too early, or not at all")


def _block(directory: Directory, width: int, height: int) -> tuple[int, int]:
    """Return the size of a tile, or of a strip, which may say that it is taller than all."""
    if Tag.TILE_WIDTH in directory.entries:
        across, down = directory.number(Tag.TILE_WIDTH), directory.number(Tag.TILE_HEIGHT)
    else:
        across, down = width, directory.number(Tag.STRIP_ROWS, ALL_ROWS)
        down = height if down == ALL_ROWS else down
    if across == 0 or down == 0:
        raise ValueError("tiles or strips of no size")
    return across, down


def _offsets(directory: Directory) -> NDArray[np.unsignedinteger]:
    tiled = Tag.TILE_OFFSETS in directory.entries
    return directory.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)


def _sizes(directory: Directory) -> NDArray[np.unsignedinteger]:
    tiled = Tag.TILE_SIZES in directory.entries
    return directory.numbers(Tag.TILE_SIZES if tiled else Tag.STRIP_SIZES)
