"""The input of a graph, as every runtime takes it apart."""

import pytest

from yoloserve.engine.backends.base import Entry, entry_of
from yoloserve.errors import ModelUnsupported


@pytest.mark.parametrize(
    ("shape", "in_rows", "entry"),
    [
        ([1, 3, 384, 640], False, Entry(1, 384, 640)),
        ([None, 3, None, None], False, Entry(None, None, None)),
        ([4, None, 384, 640], False, Entry(4, 384, 640)),  # whatever it takes, it takes three
        ([1, 384, 640, 3], True, Entry(1, 384, 640)),
        ([None, None, 640, 3], True, Entry(None, None, 640)),
    ],
)
def test_planes_and_rows_are_the_same_picture(shape, in_rows: bool, entry: Entry) -> None:
    assert entry_of([shape], in_rows=in_rows) == entry


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([[1, 3, 64, 64], [1, 2]], "2 inputs: give one image"),
        ([], "0 inputs"),
        ([[1, 1, 64, 64]], r"\[1, 1, 64, 64\], no image"),
        ([[1, 64, 64, 3]], "no image"),  # rows, where planes are meant
        ([[3, 64, 64]], "no image"),
    ],
)
def test_what_is_no_picture_is_refused(inputs, told: str) -> None:
    with pytest.raises(ModelUnsupported, match=told):
        entry_of(inputs)


def test_what_a_runtime_calls_its_input_is_repeated() -> None:
    with pytest.raises(ModelUnsupported, match="input is f32 1x1x64x64, no image"):
        entry_of([[1, 1, 64, 64]], "f32 1x1x64x64")
