"""Bytes to images, images to tensors and back."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yoloserve.errors import InvalidImage, TooManyPixels, UnsupportedMediaType
from yoloserve.images import decoding, tiff
from yoloserve.images import jpeg as jpegs
from yoloserve.images.decoding import decode, decode_for, read_header
from yoloserve.images.letterbox import Frame, Image, InputSize, letterbox

ANY = 10**6
LOSSLESS = {".png": [], ".bmp": [], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}


def encoded(image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image, LOSSLESS.get(suffix, []))[1].tobytes()


def with_exif(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    """Put an EXIF block with an orientation into a JPEG."""
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_lossless_image_is_decoded_to_the_pixels_it_was_made_of(
    picture: Image, suffix: str
) -> None:
    np.testing.assert_array_equal(decode(encoded(picture, suffix), max_pixels=ANY), picture)


def test_a_jpeg_is_decoded_to_the_very_pixels_that_opencv_gives(jpeg: bytes) -> None:
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(jpeg, max_pixels=ANY), expected)


def test_a_grey_jpeg_becomes_three_equal_channels(picture: Image) -> None:
    grey = np.ascontiguousarray(picture[:, :, :1])
    image = decode(simplejpeg.encode_jpeg(grey, colorspace="GRAY"), max_pixels=ANY)
    assert image.shape == picture.shape
    assert (image == image[:, :, :1]).all()


def test_a_cmyk_jpeg_is_converted_as_opencv_does(picture: Image) -> None:
    ink = 255 - np.dstack((picture[:, :, ::-1], np.zeros(picture.shape[:2], np.uint8)))
    cmyk = simplejpeg.encode_jpeg(np.ascontiguousarray(255 - ink), 95, "CMYK")
    assert simplejpeg.decode_jpeg_header(cmyk)[2] in ("CMYK", "YCCK")
    expected = cv2.imdecode(np.frombuffer(cmyk, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decode(cmyk, max_pixels=ANY).astype(int) - expected).max() <= 1


def test_sixteen_bits_keep_the_upper_eight(picture: Image) -> None:
    deep = picture.astype(np.uint16) * 256 + 17
    np.testing.assert_array_equal(decode(encoded(deep, ".png"), max_pixels=ANY), picture)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_alpha_is_dropped(picture: Image, suffix: str) -> None:
    alpha = np.dstack((picture, np.full(picture.shape[:2], 7, np.uint8)))
    np.testing.assert_array_equal(decode(encoded(alpha, suffix), max_pixels=ANY), picture)


def test_the_alpha_of_a_lossy_webp_changes_no_colour(picture: Image) -> None:
    alpha = np.dstack((picture, np.full(picture.shape[:2], 7, np.uint8)))
    quality = [cv2.IMWRITE_WEBP_QUALITY, 90]
    plain, mixed = (cv2.imencode(".webp", each, quality)[1].tobytes() for each in (picture, alpha))
    assert b"ALPH" in mixed
    difference = decode(mixed, max_pixels=ANY).astype(int) - decode(plain, max_pixels=ANY)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_grey_becomes_three_equal_channels(suffix: str) -> None:
    grey = np.random.default_rng(7).integers(0, 256, (9, 14), np.uint8)
    image = decode(encoded(grey, suffix), max_pixels=ANY)
    np.testing.assert_array_equal(image, np.dstack([grey] * 3))


def png(pixels: np.ndarray, *, kind: int, depth: int = 8, before: bytes = b"") -> bytes:
    """Write a PNG of any kind (0 grey, 2 colour, 3 palette, 4 and 6 with alpha), samples as is."""
    height, width = pixels.shape[:2]
    big = pixels.astype(f">u{depth // 8}")
    rows = b"".join(b"\0" + big[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_any_kind_gives_its_colours_and_nothing_of_its_alpha(
    kind: int, channels: int, depth: int
) -> None:
    stored = np.random.default_rng(7).integers(0, 2**depth, (9, 14, channels), np.uint16)
    colours = stored[:, :, : 3 if channels >= 3 else 1] >> depth - 8
    image = decode(png(stored, kind=kind, depth=depth), max_pixels=ANY)
    np.testing.assert_array_equal(image, np.broadcast_to(colours, image.shape)[:, :, ::-1])


def test_a_png_with_a_palette_gives_its_colours_though_some_are_transparent() -> None:
    colours = np.random.default_rng(7).integers(0, 256, (256, 3), np.uint8)
    indices = np.arange(252, dtype=np.uint8).reshape(14, 18)
    tables = chunk(b"PLTE", colours.tobytes()) + chunk(b"tRNS", bytes(range(256)))
    image = decode(png(indices, kind=3, before=tables), max_pixels=ANY)
    np.testing.assert_array_equal(image, colours[indices][:, :, ::-1])


EXIF = {
    order: (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 1)
    for order in "<>"
}


def exif(orientation: int, order: str) -> bytes:
    return EXIF[order] + struct.pack(f"{order}HHIHHI", 0x0112, 3, 1, orientation, 0, 0)


def webp_with_exif(webp: bytes, block: bytes, width: int, height: int) -> bytes:
    """Make an extended WebP of a simple one, with an EXIF block."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + webp[12:]
    parts += b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_png_and_webp_is_applied_once(
    picture: Image, orientation: int, order: str
) -> None:
    expected = decoding._upright(picture, orientation)
    block = exif(orientation, order)
    turned = png(picture[:, :, ::-1], kind=2, before=chunk(b"eXIf", block))
    np.testing.assert_array_equal(decode(turned, max_pixels=ANY), expected)
    turned = webp_with_exif(encoded(picture, ".webp"), block, 160, 90)
    assert (read_header(turned).width, read_header(turned).height) == (160, 90)
    np.testing.assert_array_equal(decode(turned, max_pixels=ANY), expected)


@pytest.mark.parametrize("colorspace", ["GRAY", "CMYK"])
def test_a_grey_or_cmyk_jpeg_looks_the_same_at_half_its_size(colorspace: str) -> None:
    size, soft = (
        InputSize(160, 160, dynamic=True),
        cv2.imdecode(np.frombuffer(photo(320, 180), np.uint8), cv2.IMREAD_COLOR),
    )
    black = np.zeros(soft.shape[:2], np.uint8)
    planes = soft[:, :, :1] if colorspace == "GRAY" else np.dstack((soft, 255 - black))
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(planes), 95, colorspace)
    image, reduced = decode_for(jpeg, read_header(jpeg), size)
    tensor, _ = letterbox(image, size, reduced)
    expected, _ = letterbox(decode(jpeg, max_pixels=ANY), size)
    assert tensor.shape == expected.shape
    assert np.abs(tensor.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_a_jpeg_is_applied_as_opencv_does(
    jpeg: bytes, orientation: int, order: str
) -> None:
    turned = with_exif(jpeg, orientation, order)
    expected = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(turned, max_pixels=ANY), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(jpeg: bytes, orientation: int) -> None:
    assert tiff.orientation(jpegs.head(with_exif(jpeg, orientation)).exif) == 1


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_no_exif_block_whatever_is_in_it_breaks_the_reader(block: bytes) -> None:
    segment = b"Exif\0\0" + block
    frame = b"\xff\xc0" + struct.pack(">HBHH", 7, 8, 1, 1)
    jpeg = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + frame
    jpeg += b"\xff\xda"
    assert 1 <= tiff.orientation(jpegs.head(jpeg).exif) <= 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_the_header_gives_the_size_without_decoding(picture: Image, suffix: str) -> None:
    header = read_header(
        encoded(picture, suffix)[:200] if suffix != ".jpg" else encoded(picture, suffix)
    )
    assert (header.width, header.height) == (160, 90)


def test_the_header_of_a_lossy_webp_gives_its_size(picture: Image) -> None:
    lossy = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    assert lossy[12:16] in (b"VP8 ", b"VP8X")
    assert (read_header(lossy).width, read_header(lossy).height) == (160, 90)


def test_the_header_of_an_extended_webp_gives_its_size() -> None:
    canvas = struct.pack("<I", 0)[:4] + (159).to_bytes(3, "little") + (89).to_bytes(3, "little")
    extended = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + canvas
    assert (read_header(extended).width, read_header(extended).height) == (160, 90)


def test_a_huge_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(decoding.cv2, "imdecode", decoded)
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    with pytest.raises(TooManyPixels, match="20000 x 20000"):
        decode(bomb, max_pixels=40_000_000)


def test_an_image_of_exactly_the_limit_is_decoded(jpeg: bytes) -> None:
    assert decode(jpeg, max_pixels=160 * 90).shape == (90, 160, 3)
    with pytest.raises(TooManyPixels):
        decode(jpeg, max_pixels=160 * 90 - 1)


@pytest.mark.parametrize("body", [b"", b"hello", b"GIF89a" + bytes(50), b"%PDF-1.7", b"\xff\xd8"])
def test_what_is_no_image_is_unsupported(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode(body, max_pixels=ANY)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_half_an_image_is_no_image(suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    whole = encoded(noise, suffix)
    with pytest.raises(InvalidImage):
        decode(whole[: int(len(whole) * share)], max_pixels=ANY)


@pytest.mark.parametrize("stray", [0x02, 0x80, 0xBF, 0xC1, 0xD8, 0xF7])
@pytest.mark.parametrize("sampling", [0x411111, 0x221111])
def test_a_frame_that_stops_at_a_marker_in_its_midst_is_none(stray: int, sampling: int) -> None:
    """OpenCV makes the rest up in grey, and says nothing."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
    middle = len(whole) // 2
    with pytest.raises(InvalidImage):
        decode(whole[:middle] + bytes((0xFF, stray)) + whole[middle:], max_pixels=ANY)


ODD = {  # and harmless: cheap cameras, and what stores their pictures, write such
    "stray bytes before the end": lambda jpeg: jpeg[:-2] + b"\x124V\x00" * 30 + jpeg[-2:],
    "padding before the end": lambda jpeg: jpeg[:-2] + b"\xff" * 5 + jpeg[-2:],
    "padding after the end": lambda jpeg: jpeg + bytes(512),
    "no end": lambda jpeg: jpeg[:-2],
    "half an end": lambda jpeg: jpeg[:-1],
    "zeros for an end": lambda jpeg: jpeg[:-2] + bytes(512),
    "padding before the tables": lambda jpeg: jpeg[:2] + b"\xff" * 9 + jpeg[2:],
    "a comment": lambda jpeg: jpeg[:2] + b"\xff\xfe\x00\x06\xff\xda\xff\xd9" + jpeg[2:],
    "a second picture": lambda jpeg: jpeg + jpeg,
    "JFIF 5": lambda jpeg: jpeg.replace(b"JFIF\0\x01", b"JFIF\0\x05", 1),
    "stray bytes before a table": lambda jpeg: jpeg.replace(b"\xff\xc4", b"stray\xff\xc4", 1),
}
DECODED_WHOLE = {"JFIF 5", "stray bytes before a table"}  # whatever the network's size


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("oddity", ODD)
def test_what_is_odd_and_harmless_changes_no_pixel(
    picture: Image, oddity: str, progressive: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 60, picture.shape, np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    clean = cv2.imencode(".jpg", picture // 2 + noise, options)[1].tobytes()
    odd = ODD[oddity](clean)
    np.testing.assert_array_equal(decode(odd, max_pixels=ANY), decode(clean, max_pixels=ANY))
    tensors = [
        letterbox(image, InputSize(80, 80), reduced)[0]
        for image, reduced in (
            decode_for(each, read_header(each), InputSize(80, 80)) for each in (odd, clean)
        )
    ]
    apart = np.abs(tensors[0].astype(int) - tensors[1]).mean()
    assert apart <= (4 if oddity in DECODED_WHOLE else 0)


def damaged(jpeg: bytes, bytes_at: dict[int, int]) -> bytes:
    """Change bytes, counted from the first table of Huffman codes."""
    content, begin = bytearray(jpeg), jpeg.index(b"\xff\xc4")
    for at, value in bytes_at.items():
        content[begin + at] = value
    return bytes(content)


@settings(max_examples=150)
@given(
    st.sampled_from([(160, 90), (320, 180)]),
    st.dictionaries(st.integers(0, 500), st.integers(0, 255), max_size=3),
    st.binary(max_size=3),
)
@example((160, 90), {}, b"two")  # what is odd comes before the picture, which is not begun then
@example((320, 180), {}, b"two")
@example((160, 90), {4: 255}, b"two")  # and the end of it comes after what is odd
def test_no_picture_shows_what_was_in_its_memory_before(
    shape: tuple[int, int], bytes_at: dict[int, int], stray: bytes
) -> None:
    size = InputSize(160, 160, dynamic=True)
    jpeg = damaged(photo(*shape), bytes_at).replace(b"\xff\xc4", stray + b"\xff\xc4", 1)
    tensors = []
    for others in (7, 201):
        try:
            header = read_header(jpeg)
            frame = Frame.of(header.width, header.height, size)
            frame.place[:] = others
            image, reduced = decode_for(jpeg, header, size, frame.place)
        except InvalidImage:
            continue
        tensors.append(letterbox(image, size, reduced, frame)[0])
    assert len(tensors) in (0, 2)
    for tensor in tensors:
        np.testing.assert_array_equal(tensor, tensors[0])


@pytest.mark.parametrize("reduced", [1, 2])
def test_a_frame_with_stray_bytes_is_decoded_once(
    jpeg: bytes, monkeypatch: pytest.MonkeyPatch, reduced: int
) -> None:
    """As common webcams send them; and without a line of libjpeg's own on stderr."""
    monkeypatch.setattr(decoding.cv2, "imdecode", None)
    size = InputSize(160 // reduced, 160 // reduced)
    odd = ODD["stray bytes before the end"](jpeg)
    assert decode_for(odd, read_header(odd), size)[1] == reduced


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", bytes(64), bytes(64) + b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_half_a_frame_is_none_whatever_follows_it(
    picture: Image, tail: bytes, progressive: int, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, picture.shape, np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
    start = whole.index(b"\xff\xda")
    with pytest.raises(InvalidImage):
        decode(whole[: start + int((len(whole) - start) * share)] + tail, max_pixels=ANY)


def test_an_unusual_sampling_of_colours_is_decoded(picture: Image) -> None:
    """What libjpeg-turbo's own interface does not know: 4:4:4 written as 2:2:2."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    usual = cv2.imencode(".jpg", picture, sampling)[1].tobytes()
    frame = usual.index(b"\xff\xc0")
    assert usual[frame + 11] == 0x22
    odd = usual[: frame + 11] + b"\x31" + usual[frame + 12 :]
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg_header(odd)
    assert decode(odd, max_pixels=ANY).shape == picture.shape


@settings(max_examples=500)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM", b""]),
    st.binary(max_size=300),
)
def test_any_bytes_are_an_image_or_a_refusal(start: bytes, rest: bytes) -> None:
    try:
        image = decode(start + rest, max_pixels=ANY)
    except (UnsupportedMediaType, InvalidImage, TooManyPixels):
        return
    assert image.ndim == 3


sizes = st.integers(1, 3000)
inputs = st.builds(
    InputSize,
    height=st.sampled_from([64, 320, 384, 640]),
    width=st.sampled_from([64, 320, 640]),
    stride=st.just(32),
    dynamic=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, inputs)
def test_a_tensor_has_the_networks_size_or_the_smallest_on_its_stride(
    width: int, height: int, size: InputSize
) -> None:
    tensor, _ = letterbox(np.zeros((height, width, 3), np.uint8), size)
    if size.dynamic:
        assert tensor.shape[0] % size.stride == tensor.shape[1] % size.stride == 0
        assert tensor.shape[0] <= size.height
        assert tensor.shape[1] <= size.width
        assert (
            size.height - tensor.shape[0] < size.stride
            or size.width - tensor.shape[1] < size.stride
        )
    else:
        assert tensor.shape == (size.height, size.width, 3)


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, inputs, st.data())
def test_a_box_comes_back_from_the_tensor_to_where_it_was(
    width: int, height: int, size: InputSize, data: st.DataObject
) -> None:
    _, fit = letterbox(np.zeros((height, width, 3), np.uint8), size)
    x1, x2 = sorted(data.draw(st.tuples(*[st.floats(0, width)] * 2)))
    y1, y2 = sorted(data.draw(st.tuples(*[st.floats(0, height)] * 2)))
    box = np.array([[x1, y1, x2, y2]], np.float32)
    gains = np.array((fit.gain_x, fit.gain_y) * 2)
    there = box * gains + (fit.left, fit.top, fit.left, fit.top)
    np.testing.assert_allclose(
        fit.to_image(there.astype(np.float32)), box, atol=2e-3 / min(1, *gains)
    )


def test_a_box_beyond_the_picture_ends_at_its_edge(picture: Image) -> None:
    _, fit = letterbox(picture, InputSize(64, 64))
    outside = np.array([[-50, -50, 500, 500]], np.float32)
    np.testing.assert_array_equal(fit.to_image(outside), [[0, 0, 160, 90]])


def test_the_picture_lies_in_the_middle_of_grey_114(picture: Image) -> None:
    tensor, fit = letterbox(picture, InputSize(64, 64))
    assert (fit.left, fit.top) == (0, 14)
    assert (tensor[:14] == 114).all()
    assert (tensor[14 + 36 :] == 114).all()
    np.testing.assert_array_equal(tensor[14], cv2.resize(picture, (64, 36))[0])


def test_a_wide_picture_makes_a_wide_tensor_for_a_dynamic_network(picture: Image) -> None:
    big = cv2.resize(picture, (1280, 720))
    assert letterbox(big, InputSize(640, 640, dynamic=True))[0].shape == (384, 640, 3)


def test_a_picture_of_the_networks_size_is_not_resized(picture: Image) -> None:
    tensor, fit = letterbox(picture, InputSize(90, 160))
    np.testing.assert_array_equal(tensor, picture)
    assert (fit.gain_x, fit.gain_y) == (1, 1)


def photo(width: int, height: int) -> bytes:
    """Make a JPEG of soft shapes, as a camera sees them."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("shape", [(320, 180), (180, 320)])
def test_a_jpeg_seen_at_half_its_size_is_decoded_so_and_looks_the_same(
    shape: tuple[int, int], orientation: int
) -> None:
    size, jpeg = InputSize(160, 160, dynamic=True), with_exif(photo(*shape), orientation)
    image, reduced = decode_for(jpeg, read_header(jpeg), size)
    assert reduced == 2
    tensor, fit = letterbox(image, size, reduced)
    expected, expected_fit = letterbox(decode(jpeg, max_pixels=ANY), size)
    assert fit == expected_fit
    assert tensor.shape == expected.shape
    assert np.abs(tensor.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    "shape", [(320, 180), (160, 90), (320, 320), (160, 160), (180, 320), (90, 160), (300, 180)]
)
def test_a_jpeg_decoded_into_its_tensor_makes_the_same_tensor(
    shape: tuple[int, int], dynamic: bool, orientation: int
) -> None:
    size, jpeg = InputSize(160, 160, dynamic=dynamic), with_exif(photo(*shape), orientation)
    expected = letterbox(*_asked(jpeg, size))
    frame = Frame.of(*shape, size)
    image, reduced = decode_for(jpeg, read_header(jpeg), size, frame.place)
    tensor, fit = letterbox(image, size, reduced, frame)
    np.testing.assert_array_equal(tensor, expected[0])
    assert fit == expected[1]
    as_wide_as_its_tensor = shape[0] in (160, 320)
    assert (image is frame.place) == (orientation == 1 and as_wide_as_its_tensor)

    memory = np.full(160 * 160 * 3 + 9, 7, np.uint8)
    frame = Frame.of(*shape, size, memory)
    image, reduced = decode_for(jpeg, read_header(jpeg), size, frame.place)
    tensor, fit = letterbox(image, size, reduced, frame, memory)
    np.testing.assert_array_equal(tensor, expected[0])
    assert fit == expected[1]
    seen = Frame.over(fit.width, fit.height, size, memory)  # by whom the picture is not sent to
    np.testing.assert_array_equal(seen.tensor, expected[0])
    assert seen.fit == expected[1]


def _asked(jpeg: bytes, size: InputSize) -> tuple[Image, InputSize, int]:
    image, reduced = decode_for(jpeg, read_header(jpeg), size)
    return image, size, reduced


def test_what_is_no_jpeg_finds_its_place_as_well(picture: Image) -> None:
    size = InputSize(160, 160)
    frame = Frame.of(picture.shape[1], picture.shape[0], size)
    png = encoded(picture, ".png")
    image, reduced = decode_for(png, read_header(png), size, frame.place)
    tensor, _ = letterbox(image, size, reduced, frame)
    assert tensor is frame.tensor
    np.testing.assert_array_equal(tensor, letterbox(picture, size)[0])


@pytest.mark.parametrize("shape", [(321, 180), (320, 181), (322, 180), (300, 180), (480, 270)])
def test_a_jpeg_seen_at_any_other_size_is_decoded_whole(shape: tuple[int, int]) -> None:
    jpeg = photo(*shape)
    image, reduced = decode_for(jpeg, read_header(jpeg), InputSize(160, 160))
    assert (reduced, image.shape[1::-1]) == (1, shape)


def test_half_a_jpeg_is_no_image_at_half_its_size_either() -> None:
    whole = photo(320, 180)
    half = whole[: len(whole) // 2]
    with pytest.raises(InvalidImage):
        decode_for(half, read_header(half), InputSize(160, 160))
