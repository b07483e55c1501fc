"""The runtimes: each reads its files, and all of them see the same."""

import json
import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yoloserve.detections.postprocess import Detections, Head, Options, iou, postprocess
from yoloserve.engine.backends import onnxruntime
from yoloserve.engine.backends import torch as torch_backend
from yoloserve.engine.backends.torch import _torchscript as load_torchscript
from yoloserve.engine.backends.torch import for_tensor_cores, make_on
from yoloserve.engine.starting import PROBE, Engine, start
from yoloserve.errors import BackendUnsupported
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Image, InputSize, letterbox
from yoloserve.model.weights import BUNDLED
from yoloserve.settings import BackendName, PrecisionName, Settings

# Torch wants its own format to be exported; TorchScript is what the public YOLO exporter writes.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.(trace|save).*:FutureWarning")

NAMES = ("circle", "square", "star")
RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH]
OPTIONS = Options(confidence=0.25, iou=0.7, max_detections=300)


class MeanColour(torch.nn.Module):
    """Reports the mean of red, green and blue as the scores of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("box", torch.tensor([[32.0, 32.0, 20.0, 10.0]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        row = torch.cat((self.box, images.mean(dim=(2, 3))), dim=1)
        return row[:, :, None].repeat(1, 1, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_module_made_for_tensor_cores_sees_the_same(dtype: torch.dtype) -> None:
    """On a CPU, which computes in these types as well, only slower."""
    content = (BUNDLED / "shapes.torchscript").read_bytes()
    exact, _ = load_torchscript(content, "cpu")
    changed, _ = load_torchscript(content, "cpu")
    for_tensor_cores(changed, dtype)
    weight = next(p for p in changed.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert weight.dtype is dtype
    assert weight.is_contiguous(memory_format=torch.channels_last)
    image = decode(PROBE.read_bytes(), max_pixels=10**8)
    pixels, _ = letterbox(image, InputSize(320, 320))
    planes = torch.from_numpy(pixels[None].copy()).flip(-1).permute(0, 3, 1, 2) / 255
    half = dtype is not torch.float32
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=half):
        expected, found = exact(planes), changed(planes.to(dtype)).float()
    assert (found[:, 4:] - expected[:, 4:]).abs().max() < 0.02


@pytest.fixture(scope="module")
def mean_colour(tmp_path_factory: pytest.TempPathFactory) -> dict[BackendName, str]:
    """The same network as a file for each runtime, as the public exporters write them."""
    folder = tmp_path_factory.mktemp("colour")
    metadata = {"names": dict(enumerate(NAMES)), "imgsz": [64, 64], "stride": 32, "task": "detect"}
    example = torch.zeros(1, 3, 64, 64)
    traced = torch.jit.trace(MeanColour().eval(), example)
    traced.save(
        str(folder / "colour.torchscript"), _extra_files={"config.txt": json.dumps(metadata)}
    )
    (folder / "colour.onnx").write_bytes(onnx_of_mean_colour(metadata))
    onnx, torchscript = ((folder / f"colour.{s}").as_uri() for s in ("onnx", "torchscript"))
    return dict(zip(RUNTIMES, (onnx, onnx, torchscript), strict=True))


def onnx_of_mean_colour(metadata: dict[str, object], *, sized: bool = False) -> bytes:
    """Make the ONNX file; `sized`: for any size, and the box is multiplied by the longer side."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["scores"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["place" if sized else "box", "scores"], ["row"], axis=1),
        helper.make_node("Unsqueeze", ["row", "last"], ["column"]),
        helper.make_node("Tile", ["column", "times"], ["output0"]),
    ]
    if sized:
        nodes[:0] = [
            helper.make_node("Shape", ["images"], ["shape"]),
            helper.make_node("Slice", ["shape", "last", "end"], ["sides"]),
            helper.make_node("ReduceMax", ["sides"], ["longer"], keepdims=1),
            helper.make_node("Cast", ["longer"], ["side"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["box", "side"], ["place"]),
        ]
    shape = [1, 3, "height", "width"] if sized else [1, 3, 64, 64]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, 10])],
        [
            numpy_helper.from_array(np.array([[32, 32, 20, 10]], np.float32), "box"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([4]), "end"),
            numpy_helper.from_array(np.array([1, 1, 10]), "times"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    return model.SerializeToString()


@pytest.fixture(scope="module", params=RUNTIMES)
def colour_engine(request, mean_colour, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    cache = tmp_path_factory.mktemp("cache")
    asked = {"model": mean_colour[request.param], "backend": request.param}
    settings = Settings(cache_dir=cache, allow_torchscript=True, **asked)
    return start(settings.model_copy(update={"precision": PrecisionName.FP32}))


def test_a_runtime_tells_what_it_loaded(colour_engine: Engine) -> None:
    assert colour_engine.info.classes == NAMES
    assert colour_engine.info.precision is PrecisionName.FP32
    assert (colour_engine.input_size.height, colour_engine.input_size.width) == (64, 64)


@pytest.mark.parametrize(
    ("bgr", "scores"),
    [((255, 0, 0), (0, 0, 1)), ((0, 255, 0), (0, 1, 0)), ((0, 0, 51), (0.2, 0, 0))],
)
def test_a_network_gets_red_green_and_blue_from_0_to_1(
    colour_engine: Engine, bgr: tuple[int, ...], scores: tuple[float, ...]
) -> None:
    tensor = np.full((64, 64, 3), bgr, np.uint8)
    (output,) = colour_engine.infer(0, [tensor])
    assert output.shape == (7, 10)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output[4:, 0], scores, atol=1e-6)


def test_an_answer_is_the_callers_own(colour_engine: Engine) -> None:
    (first,) = colour_engine.infer(0, [np.full((64, 64, 3), 255, np.uint8)])
    kept = first.copy()
    colour_engine.infer(0, [np.zeros((64, 64, 3), np.uint8)])
    np.testing.assert_array_equal(first, kept)


def views_of_the_probe() -> list[Image]:
    """The bundled picture as it is and as other cameras would see it."""
    probe = decode(PROBE.read_bytes(), max_pixels=10**8)
    height, width = probe.shape[:2]
    return [
        probe,
        np.ascontiguousarray(probe[:, ::-1]),
        np.ascontiguousarray(probe[: height // 2]),
        np.ascontiguousarray(probe[:, : width // 3]),
        cv2.resize(probe, None, fx=2.3, fy=2.3),
        (probe * 0.6).astype(np.uint8),
    ]


def seen(engine: Engine, image: Image) -> Detections:
    tensor, fit = letterbox(image, engine.input_size)
    (output,) = engine.infer(0, [tensor])
    return postprocess(output, engine.head, fit, OPTIONS)


@pytest.mark.parametrize("model", ["shapes", "shapes-v2"])
def test_all_runtimes_see_the_same_in_the_bundled_models(model: str, tmp_path: Path) -> None:
    settings = Settings(model=f"demo://{model}", cache_dir=tmp_path)
    fp32 = {"precision": PrecisionName.FP32}
    engines = [start(settings.model_copy(update=fp32 | {"backend": name})) for name in RUNTIMES]
    reference = engines[RUNTIMES.index(BackendName.ONNXRUNTIME)]
    objects = 0
    for image in views_of_the_probe():
        expected = seen(reference, image)
        objects += len(expected)
        for engine in engines:
            found = seen(engine, image)
            assert found.classes.tolist() == expected.classes.tolist()
            overlaps = np.diag(iou(found.boxes, expected.boxes))
            assert overlaps.min(initial=1) >= 0.99
            assert np.abs(found.scores - expected.scores).max(initial=0) <= 0.01
    assert objects >= 6


@pytest.mark.parametrize(
    ("available", "names"),
    [
        (["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
    ],
)
def test_onnx_runtime_prefers_the_gpu_and_leaves_tensorrt_to_its_backend(available, names) -> None:
    assert [name for name, _ in onnxruntime.providers(available, PrecisionName.FP16)] == names


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("fp16", "1")])
def test_on_a_gpu_fp32_means_just_that(precision: str, tf32: str) -> None:
    (_, options), _ = onnxruntime.providers([onnxruntime.CUDA], PrecisionName(precision))
    assert options["use_tf32"] == tf32


def test_without_a_driver_there_is_no_gpu() -> None:
    assert not onnxruntime.has_gpu("libno-such-driver.so.1")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_gpu_that_onnx_runtime_cannot_use_is_not_silently_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "_available", lambda: {onnxruntime.CUDA, onnxruntime.CPU})
    with pytest.raises(BackendUnsupported, match="cannot use the GPU"):
        start(Settings(backend=BackendName.ONNXRUNTIME, cache_dir=tmp_path))


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize("model", ["shapes", "shapes-v2"])
def test_the_bundled_models_see_their_probe_picture(
    model: str, backend: BackendName, tmp_path: Path
) -> None:
    engine = start(Settings(model=f"demo://{model}", backend=backend, cache_dir=tmp_path))
    assert engine.info.name == model


class Suppressing(torch.nn.Module):
    """Calls what the exporter's `nms=True` calls; three boxes, of which one goes."""

    def __init__(self) -> None:
        super().__init__()
        boxes = [[8.0, 8, 40, 40], [9, 8, 40, 40], [44, 44, 60, 60]]
        self.register_buffer("boxes", torch.tensor(boxes))
        self.register_buffer("scores", torch.tensor([0.6, 0.9, 0.7]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.scores + 0 * images.mean()
        kept = torch.ops.torchvision.nms(self.boxes, scores, 0.5)
        rows = (self.boxes[kept], scores[kept, None], torch.zeros(len(kept), 1))
        return torch.cat(rows, dim=1)[None]


def test_a_torchscript_makes_its_tensors_where_it_runs_not_where_it_was_exported() -> None:
    """Traces of dynamic exports say on which device the grid of anchors is to be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module, _ = load_torchscript((BUNDLED / "shapes.torchscript").read_bytes(), "cpu")
        make_on(module, "meta")  # a device that every machine has, besides its CPU
    told = re.findall(r'Device = prim::Constant\[value="(\w+)', str(module.inlined_graph))
    assert set(told) == {"meta"}


def export_suppressing(path: Path) -> None:
    """Export it where torchvision is, as its author does; here, that is gone afterwards."""
    told = {"names": {0: "a"}, "imgsz": [64, 64], "args": {"nms": True}}
    torchvision = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):  # ours, where a TorchScript was loaded before
        torchvision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision.impl("nms", torch_backend._suppress, "CompositeExplicitAutograd")
    with warnings.catch_warnings(action="ignore"):  # it warns of what a trace does not repeat
        traced = torch.jit.trace(Suppressing().eval(), torch.zeros(1, 3, 64, 64))
    traced.save(str(path), _extra_files={"config.txt": json.dumps(told)})
    torchvision._destroy()


def test_a_torchscript_with_suppression_inside_runs_without_torchvision(tmp_path: Path) -> None:
    export_suppressing(tmp_path / "nms.torchscript")
    address = (tmp_path / "nms.torchscript").as_uri()
    allowed = {"allow_torchscript": True, "allow_blind": True}  # its boxes are what they are
    engine = start(Settings(model=address, cache_dir=tmp_path, **allowed))
    assert (engine.info.backend, engine.head) == (BackendName.TORCH, Head.END_TO_END)
    found = seen(engine, np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    np.testing.assert_allclose(found.boxes, [[9, 8, 40, 40], [44, 44, 60, 60]])


@pytest.mark.parametrize("backend", [BackendName.OPENVINO, BackendName.ONNXRUNTIME])
def test_a_graph_that_computes_with_its_size_is_told_the_right_one(
    tmp_path: Path, backend: BackendName
) -> None:
    """As `nms=True` exports do, whose classes are kept apart by it."""
    metadata = {"names": dict(enumerate(NAMES)), "imgsz": [64, 64], "stride": 32, "task": "detect"}
    path = tmp_path / "sized.onnx"
    path.write_bytes(onnx_of_mean_colour(metadata, sized=True))
    engine = start(Settings(model=path.as_uri(), backend=backend, cache_dir=tmp_path / "cache"))
    assert engine.input_size == InputSize(64, 64, dynamic=True)
    for height, width in ((64, 64), (32, 64), (64, 32)):
        (output,) = engine.infer(0, [np.full((height, width, 3), (255, 0, 51), np.uint8)])
        sides = np.array([32, 32, 20, 10]) * max(height, width)
        np.testing.assert_allclose(output[:4, 0], sides, rtol=1e-2)
        np.testing.assert_allclose(output[4:, 0], (0.2, 0, 1), atol=4e-3)


def test_a_graph_that_reorders_its_classes_sees_the_colours_that_are_there(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    weights = rng.uniform(0, 0.3, (7, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["map"], strides=[32, 32]),
        helper.make_node("Reshape", ["map", "flat"], ["rows"]),
        helper.make_node("Gather", ["rows", "order"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "reorders",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, 4])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1, 7, -1]), "flat"),
            numpy_helper.from_array(np.array([0, 1, 2, 3, 6, 5, 4]), "order"),
        ],
    )
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (tmp_path / "reorders.onnx").write_bytes(model.SerializeToString())
    tensor = rng.integers(0, 256, (64, 64, 3), np.uint8)
    outputs = []
    for backend in (BackendName.OPENVINO, BackendName.ONNXRUNTIME):
        address = (tmp_path / "reorders.onnx").as_uri()
        engine = start(
            Settings(
                model=address,
                backend=backend,
                precision=PrecisionName.FP32,  # some CPUs would round, by default
                classes=NAMES,
                head="anchor-free",
                allow_blind=True,
                cache_dir=tmp_path / "cache",
            )
        )
        outputs += engine.infer(0, [tensor])
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_pixels_are_scaled_as_the_reference_does_to_the_last_bit() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    planes = onnxruntime._planes(pixels, np.float32)
    expected = torch.arange(256).float().div_(255).numpy()
    np.testing.assert_array_equal(planes[0, 0].ravel(), expected)
