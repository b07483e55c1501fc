"""What is decided about TensorRT engines, on machines that have no GPU."""

import pytest

from yoloserve.engine.backends import plans
from yoloserve.engine.backends.base import Entry
from yoloserve.errors import ModelUnsupported
from yoloserve.images.letterbox import InputSize
from yoloserve.settings import PrecisionName

SIZE = InputSize(384, 640, stride=32, dynamic=True)


@pytest.mark.parametrize(
    ("shape", "least", "usual", "most"),
    [
        ((-1, -1, -1, 3), (1, 32, 32, 3), (8, 384, 640, 3), (8, 640, 640, 3)),
        ((-1, 640, 640, 3), (1, 640, 640, 3), (8, 640, 640, 3), (8, 640, 640, 3)),
        ((1, -1, -1, 3), (1, 32, 32, 3), (1, 384, 640, 3), (1, 640, 640, 3)),
    ],
)
def test_a_profile_goes_from_one_tile_to_a_full_batch_and_is_tuned_for_what_cameras_send(
    shape, least, usual, most
) -> None:
    assert plans.profile(shape, InputSize(640, 640, dynamic=True), 8) == (least, usual, most)


def test_an_engine_for_smaller_pictures_is_refused() -> None:
    plans.require_room(SIZE, Entry(1, 384, 640))
    with pytest.raises(ModelUnsupported, match="up to 320 x 640 pixels, not 640 x 384: convert"):
        plans.require_room(SIZE, Entry(1, 640, 320))


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        ({}, PrecisionName.FP32),
        ({"precision": "fp16"}, PrecisionName.FP16),
        ({"precision": "fp64"}, PrecisionName.FP32),
        ({"args": {"half": True, "int8": False}}, PrecisionName.FP16),
        ({"args": {"half": False, "int8": True}}, PrecisionName.INT8),
        ({"args": {"quantize": 16}}, PrecisionName.FP16),
        ({"args": {"quantize": 8}}, PrecisionName.INT8),
        ({"args": "none"}, PrecisionName.FP32),
    ],
)
def test_what_an_engine_computes_in_is_read_from_its_metadata(told, precision) -> None:
    assert plans.precision_in(told) is precision


def test_a_file_is_named_after_what_it_depends_on() -> None:
    name = plans.file_name("fp16", "b1", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "tensorrt11.4.0.106")
    assert name == "fp16-b1-nvidia_h100_80gb_hbm3_mig_1g.10gb-tensorrt11.4.0.106"
