"""Pictures made to cost far more than their size: known by their bytes, and refused undecoded.

Each was measured at seconds or minutes of a core; no thread can be told to stop decoding.
"""

import struct
import zlib
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.bombs import apng, chunk, png, tiff_of_jpeg, with_comments, with_scans
from fuzz.tiffs import tiff
from yoloserve.errors import InvalidImage
from yoloserve.images import decoding, jpeg
from yoloserve.images import png as pngs
from yoloserve.images.decoding import decode, decode_for, read_header
from yoloserve.images.letterbox import InputSize

ANY = 10**7
FLAT = np.full((1728, 2304, 3), 90, np.uint8)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(decoding.cv2, "imdecode", decoded)
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", decoded)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("more", [42, 5000])
def test_a_jpeg_of_many_scans_is_refused(undecoded: None, progressive: int, more: int) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    bomb = with_scans(cv2.imencode(".jpg", FLAT, options)[1].tobytes(), more)
    assert read_header(bomb).width == 2304
    for size in (InputSize(640, 640), InputSize(864, 1152)):  # whole, and at half the size
        with pytest.raises(InvalidImage, match="more than 24 scans"):
            decode_for(bomb, read_header(bomb), size)


def test_the_scans_of_encoders_are_taken(picture: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    usual = cv2.imencode(".jpg", picture, options)[1].tobytes()
    assert jpeg.scans(usual, jpeg.head(usual).first_scan) == 10
    assert decode(usual, max_pixels=ANY).shape == picture.shape


def test_tiles_that_no_picture_needs_are_not_looked_through(undecoded: None) -> None:
    """A strip of 4 KB, listed at 4,000 places of its own, took 46 s to look through."""
    whole = tiff(
        np.zeros((20, 30), np.uint8), block=(20, 30), tags={273: [8] * 40, 279: [600] * 40}
    )
    with pytest.raises(InvalidImage, match="lists 40 tiles or strips; its picture has 1"):
        decode(whole, max_pixels=ANY)


def test_scans_that_are_not_decoded_do_not_count(picture: np.ndarray) -> None:
    """Those of pictures after the first, as phones write them, and what only looks like one."""
    usual = cv2.imencode(".jpg", picture)[1].tobytes()
    looks = b"\xff\xda" * 100
    comment = b"\xff\xfe" + struct.pack(">H", len(looks) + 2) + looks
    for odd in (
        usual + usual * 50,
        usual[:2] + comment + usual[2:],
        usual[:-2] + comment + b"\xff\xd9",
    ):
        assert jpeg.scans(odd, jpeg.head(odd).first_scan) == 1
        assert decode(odd, max_pixels=ANY).shape == picture.shape


def test_a_jpeg_of_countless_comments_is_not_followed(undecoded: None) -> None:
    """Four million of them, 47 KB as gzip, held all threads up for four seconds."""
    bomb = with_comments(cv2.imencode(".jpg", FLAT)[1].tobytes(), 5000)
    with pytest.raises(InvalidImage, match="more than 4096 markers"):
        decode(bomb, max_pixels=ANY)


def test_a_marker_is_found_wherever_a_search_ends() -> None:
    for before in range(jpeg.LOOKED_AT_ONCE - 3, jpeg.LOOKED_AT_ONCE + 3):
        data = bytes(before) + b"\xff\xda\0\x02" + bytes(jpeg.LOOKED_AT_ONCE) + b"\xff\xd9\xff\xda"
        assert jpeg.scans(data, 0) == 1


def test_padding_before_a_picture_is_not_looked_through(picture: np.ndarray) -> None:
    """It is looked at on the event loop: 32 MB of it took half a second."""
    usual = cv2.imencode(".jpg", picture)[1].tobytes()
    for many, readable in ((60_000, True), (70_000, False)):
        padded = (
            usual[:2] + b"\xff" * (many // 2) + usual[2:20] + b"\xff" * (many // 2) + usual[20:]
        )
        with nullcontext() if readable else pytest.raises(InvalidImage, match="no readable header"):
            assert read_header(padded).width == 160


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xda\x00\x08", b"\xff\xd9"]))
def test_no_scan_is_missed_by_the_quick_count(data: bytes, word: bytes) -> None:
    data = b"\xff\xda" + data + word + data
    assert jpeg.scans(data, 0) <= jpeg.seeming_scans(data, 0) == data.count(b"\xff\xda")
    assert jpeg.seeming_scans(data, 1) == data.count(b"\xff\xda", 1)


def test_headers_without_end_are_not_followed() -> None:
    for filler in (b"\xff\xe5\x00\x02", b"\xff\x01", b"\xff"):
        with pytest.raises(InvalidImage, match="no readable header"):
            read_header(b"\xff\xd8\xff" + filler * 100_000)


def test_a_jpeg_of_many_scans_in_a_tiff_is_refused(undecoded: None) -> None:
    progressive = cv2.imencode(".jpg", FLAT, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    with pytest.raises(InvalidImage, match="scans of JPEG"):
        decode(tiff_of_jpeg(with_scans(progressive, 42), 2304, 1728), max_pixels=ANY)


def test_strips_that_are_read_again_and_again_are_refused(undecoded: None) -> None:
    stored = np.zeros((200, 20, 3), np.uint8)
    strips = tiff(stored, block=(1, 20), tags={273: [8] * 200, 279: [5000] * 200})
    with pytest.raises(InvalidImage, match="lie on each other"):
        decode(strips + bytes(10_000), max_pixels=ANY)


BOMB = zlib.compress(bytes(4_000_000), 9)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"zTXt", b"k\0\0" + BOMB),
        (b"iTXt", b"k\0\1\0\0\0" + BOMB),
        (b"iCCP", b"k\0\0" + BOMB),
        (b"tEXt", b"k\0" + bytes(100_000)),
        (b"fdAT", b"\0\0\0\1" + BOMB),
    ],
)
def test_what_is_packed_beside_the_pixels_of_a_png_is_not_unpacked(
    picture: np.ndarray, kind: bytes, data: bytes, where: str
) -> None:
    clean = png(picture)
    bomb = png(picture, **{where: chunk(kind, data) * 20})
    assert pngs.plain(bomb) == clean
    np.testing.assert_array_equal(decode(bomb, max_pixels=ANY), picture)


@pytest.mark.parametrize("interlaced", [0, 1])
def test_what_is_packed_behind_the_last_row_of_a_png_is_refused(
    undecoded: None, picture: np.ndarray, interlaced: int
) -> None:
    bomb = png(picture, surplus=100_000_000, interlaced=interlaced)
    with pytest.raises(InvalidImage, match="more than its pixels"):
        decode(bomb, max_pixels=ANY)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 9), (8, 8), (33, 17)])
@pytest.mark.parametrize(
    ("kind", "depth"), [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 4), (4, 8), (6, 16)]
)
@pytest.mark.parametrize("interlaced", [0, 1])
def test_the_rows_of_a_png_are_counted_as_libpng_does(
    shape: tuple[int, int], kind: int, depth: int, interlaced: int
) -> None:
    """One byte fewer is too few for it: this is what it needs, and what it needs is let through."""
    height, width = shape
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    start = pngs.SIGNATURE + chunk(b"IHDR", header)
    start += chunk(b"PLTE", bytes(48)) if kind == 3 else b""
    unpacked = pngs._unpacked(start)

    def of(size: int) -> bytes:
        return start + chunk(b"IDAT", zlib.compress(bytes(size))) + pngs.END

    assert decode(of(unpacked), max_pixels=ANY).shape[:2] == shape
    with pytest.raises(InvalidImage):
        decode(of(unpacked - 1), max_pixels=ANY)


def test_a_photograph_is_not_taken_for_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pngs, "SURPLUS", 0)  # looked through, however small
    noise = np.random.default_rng(7).integers(0, 255, (300, 400, 3), np.uint8)
    for filters in range(5):
        encoded = cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, filters])[1].tobytes()
        np.testing.assert_array_equal(decode(encoded, max_pixels=ANY), noise)


def test_the_end_of_a_png_may_be_missing_and_its_pixels_may_not(picture: np.ndarray) -> None:
    whole = png(picture)
    np.testing.assert_array_equal(decode(whole[:-12], max_pixels=ANY), picture)
    halves = png(picture, pieces=2)
    second = halves.rindex(b"IDAT") - 4
    np.testing.assert_array_equal(decode(halves, max_pixels=ANY), picture)
    for cut in (halves[:second], halves[:second] + pngs.END):
        with pytest.raises(InvalidImage):
            decode(cut, max_pixels=ANY)


TURNED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"  # upside down


@pytest.mark.parametrize(
    "after",
    [
        chunk(b"eXIf", TURNED) * 49_000,  # a megabyte and a half of libpng's lines
        chunk(b"eXIf", b"") + chunk(b"PLTE", b"abc") * 1000,
        chunk(b"PLTE", b"a") + chunk(b"IHDR", b""),
    ],
)
def test_a_png_is_decoded_without_a_line_of_libpngs_own(
    picture: np.ndarray, after: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    bomb = png(picture, before=chunk(b"eXIf", TURNED) + chunk(b"PLTE", b"abc"), after=after)
    np.testing.assert_array_equal(decode(bomb, max_pixels=ANY), picture[::-1, ::-1])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("exif", [b"", b"II*", b"Exif\0\0", chunk(b"eXIf", TURNED)[8:-4]])
def test_a_png_whose_exif_cannot_be_read_is_upright(
    picture: np.ndarray, exif: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = bytearray(chunk(b"eXIf", exif))
    broken[-1] ^= 1
    np.testing.assert_array_equal(
        decode(png(picture, before=bytes(broken)), max_pixels=ANY), picture
    )
    assert capfd.readouterr().err == ""


def test_of_an_animation_the_still_picture_is_seen(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(apng(picture, frames=30), max_pixels=ANY), picture)
