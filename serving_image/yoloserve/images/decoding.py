"""From the bytes of a request to a picture; limits first, by its header."""

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg

from yoloserve.errors import InvalidImage, TooManyPixels, UnsupportedMediaType
from yoloserve.images import jpeg, png, tiff
from yoloserve.images.letterbox import Image, InputSize

# Images are decoded side by side on our own threads; OpenCV's would only compete with them.
cv2.setNumThreads(1)
# It writes lines of its own about each damaged image; the caller is told, and the metrics count.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


UNWRITTEN = 165  # any byte: where all of a row is so by chance, the picture is decoded once more


class Format(enum.StrEnum):
    """The encodings decoded here, by their media type."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    WEBP = "image/webp"
    BMP = "image/bmp"
    TIFF = "image/tiff"


@dataclass(frozen=True, slots=True)
class Header:
    """What an encoded image says of itself before it is decoded; pixels as stored."""

    format: Format
    width: int
    height: int
    head: jpeg.Head | None = None  # of a JPEG: what comes before its first scan

    @property
    def pixels(self) -> int:
        """Count them."""
        return self.width * self.height


def decode(encoded: bytes, *, max_pixels: int) -> Image:
    """Decode an image the way it is meant to be looked at (EXIF orientation applied).

    Grey becomes three equal channels, CMYK is converted, 16 bits keep the upper 8, and alpha is
    dropped, all as the public YOLO package reads a file: a network sees what it was trained on.
    Raises `UnsupportedMediaType`, `InvalidImage`, or, before anything is decoded, `TooManyPixels`.
    """
    return _decode(encoded, require_size(encoded, max_pixels))


def decode_for(
    encoded: bytes, header: Header, size: InputSize, into: Image | None = None
) -> tuple[Image, int]:
    """Decode an image for a network; also returns by how much it was reduced, 1 or 2.

    header: as `require_size` gave it. into: what a JPEG of this very size is written to; it is
    returned then.

    A JPEG that the network would see at exactly half its size (1280x720 at 640) is decoded so: the
    same means of four pixels, for 70 % of the time of decoding and none of resizing. Its colours
    are not interpolated in between, so boxes move as much as by rounding to bf16 (IoU down to
    0.985, mAP by 0.06 points); where a network computes in fp32, `decode_whole` keeps them.
    """
    if header.head and _halved(header, size):
        half = _turbo_jpeg(encoded, header, header.head, 2, into)
        if half is not None:
            return half, 2
    return _decode(encoded, header, into), 1


def decode_whole(
    encoded: bytes,
    header: Header,
    size: InputSize,  # noqa: ARG001
    into: Image | None = None,
) -> tuple[Image, int]:
    """Decode an image whatever the network's size, in the place of `decode_for`."""
    return _decode(encoded, header, into), 1


def require_size(encoded: bytes, max_pixels: int) -> Header:
    """Read the header of an image; raise `TooManyPixels` if it has more than these."""
    header = read_header(encoded)
    if header.pixels > max_pixels:
        raise TooManyPixels(
            f"the image has {header.width} x {header.height} pixels, more than {max_pixels}"
        )
    return header


def _decode(encoded: bytes, header: Header, into: Image | None = None) -> Image:
    if header.head:
        image = _decode_jpeg(encoded, header, header.head, into)
    else:
        image = _DECODE[header.format](encoded)
    if image is None or image.size == 0:
        raise InvalidImage(f"the {header.format} is damaged, or of a kind that is not decoded")
    return image


def read_header(encoded: bytes) -> Header:
    """Tell format and size from the first bytes; what the client calls it does not matter."""
    form, head = sniff(encoded), None
    try:
        if form is Format.JPEG:
            head = jpeg.head(encoded)
            width, height = head.width, head.height
        else:
            width, height = _SIZE_OF[form](encoded)
    except (struct.error, ValueError) as error:
        raise InvalidImage(f"the {form} has no readable header") from error
    if width <= 0 or height <= 0:
        raise InvalidImage(f"the {form} says it has {width} x {height} pixels")
    return Header(form, width, height, head)


def sniff(encoded: bytes) -> Format:
    """Tell the format from its signature."""
    if encoded.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return Format.WEBP
    if encoded.startswith(b"BM"):
        return Format.BMP
    if encoded[:4] in tiff.ORDER_OF:
        return Format.TIFF
    if encoded[:4] in tiff.BIG:
        raise UnsupportedMediaType("the body is a BigTIFF: send a TIFF of up to 4 GB")
    raise UnsupportedMediaType("the body is no image: send a JPEG, PNG, WebP, BMP or TIFF")


def _webp_size(encoded: bytes) -> tuple[int, int]:
    """Read the size of lossy, lossless and extended files (RFC 9649)."""
    kind = encoded[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", encoded, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    raise ValueError(f"unknown chunk {kind!r}")


def _bmp_size(encoded: bytes) -> tuple[int, int]:
    (header_size,) = struct.unpack_from("<I", encoded, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", encoded, 18)
    return width, abs(height)  # a negative height means "top row first"


_SIZE_OF = {
    Format.PNG: png.size,
    Format.WEBP: _webp_size,
    Format.BMP: _bmp_size,
    Format.TIFF: tiff.size,
}


def _decode_jpeg(
    encoded: bytes, header: Header, head: jpeg.Head, into: Image | None
) -> Image | None:
    """Decode with libjpeg-turbo's accurate path: bit-identical to OpenCV, and faster."""
    image = _turbo_jpeg(encoded, header, head, 1, into)
    if image is not None:
        return image
    # libjpeg-turbo's own interface knows fewer sorts than OpenCV.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    other: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    return None if other is None else _upright(other, tiff.orientation(head.exif))


def _turbo_jpeg(
    encoded: bytes, header: Header, head: jpeg.Head, reduced: int, into: Image | None
) -> Image | None:
    """Decode at a whole fraction of the size; none for a sort that is not known here.

    Where something was odd, the picture is in `image` all the same, and the error says what came
    first. Stray bytes are common in what cheap cameras send, and harmless; so is a missing end
    marker, but half a frame is a wrong frame. With the marker added, libjpeg tells the two apart.

    What was odd may also have been the first of two things, and the second the end of it, or have
    come before the picture, which was not even begun then. `image` holds what was in that memory
    before, somebody else's picture: rows are written from the top, so the last one tells.
    """
    jpeg.require_few_scans(encoded, head.first_scan)
    image = _writable((header.height // reduced, header.width // reduced, 3), into)
    image[-1] = UNWRITTEN
    ended = jpeg.has_end(encoded, head.first_scan)
    try:
        made = simplejpeg.decode_jpeg(
            encoded if ended else encoded + jpeg.END_BYTES,
            "BGR",
            min_height=image.shape[0],
            min_width=image.shape[1],
            buffer=image,
            strict=True,
        )
    except ValueError as error:
        warning = str(error)
        if "remature" in warning or not (ended or warning.endswith("before marker 0xd9")):
            raise InvalidImage("the image/jpeg is cut short") from error
        unwritten = (image[-1] == UNWRITTEN).all()
        if unwritten or not warning.startswith("Corrupt JPEG data"):  # given up, or not begun
            if jpeg.has_stray_marker(encoded, head.first_scan):  # OpenCV makes the rest up in grey
                raise InvalidImage("the image/jpeg is damaged") from error
            return None
    else:
        if made.shape != image.shape:
            raise InvalidImage("the image/jpeg has another size than its header says")
    return _upright(image, tiff.orientation(head.exif))


def _writable(shape: tuple[int, ...], into: Image | None) -> Image:
    """Take what a picture of this shape can be written to without gaps, or make such."""
    if into is not None and into.shape == shape and into.flags.c_contiguous:
        return into
    return np.empty(shape, np.uint8)


def _halved(header: Header, size: InputSize) -> bool:
    """Tell whether the letterbox halves both sides without rounding, lying or standing."""
    sides = header.width, header.height
    return all(side % 2 == 0 for side in sides) and {
        size.gain(width, height) for width, height in (sides, sides[::-1])
    } == {0.5}


def _decode_png(encoded: bytes) -> Image | None:
    return _decode_other(png.plain(encoded))


def _decode_tiff(encoded: bytes) -> Image | None:
    try:
        tiff.require_whole(encoded)
        image = _decode_other(tiff.as_stored(encoded))
    except (struct.error, ValueError) as error:
        raise InvalidImage("the image/tiff has no readable directory") from error
    return None if image is None else _upright(image, tiff.orientation(encoded))


def _decode_other(encoded: bytes) -> Image | None:
    try:
        image: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InvalidImage(f"the image is damaged: {error.err}") from error
    return image  # type: ignore[no-any-return]


_DECODE: dict[Format, Callable[[bytes], Image | None]] = {
    Format.PNG: _decode_png,
    Format.WEBP: _decode_other,
    Format.BMP: _decode_other,
    Format.TIFF: _decode_tiff,
}


def _upright(image: Image, orientation: int) -> Image:
    """Undo what the camera did when it stored the picture (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:  # stored on its side
        image = cv2.transpose(image)  # type: ignore[assignment]
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)  # type: ignore[return-value]
