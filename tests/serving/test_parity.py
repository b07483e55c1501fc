"""The same boxes as the public YOLO package, by what it answered when it was asked."""

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yoloserve.core import EngineCore
from yoloserve.detections.heads import fits
from yoloserve.detections.postprocess import Detections, Head, Options, postprocess
from yoloserve.detector import Answer, Detector
from yoloserve.engine.starting import start
from yoloserve.images.letterbox import GREY, InputSize, letterbox
from yoloserve.quality.agreement import Agreement, agreement, comparable
from yoloserve.scheduling.concurrency import Threads
from yoloserve.settings import BackendName, PrecisionName, Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Recorded by `python -m parity record`; boxes are rows of x1 y1 x2 y2 score class.
REFERENCE = json.loads((HERE / "reference.json").read_text())
HEADS = json.loads((HERE / "reference_heads.json").read_text())
FITS = json.loads((HERE / "reference_letterbox.json").read_text())
RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH]
CONFIDENCE = 0.25
OPTIONS = comparable(Options(CONFIDENCE, 0.7, 300))


def detector(cache: Path, **given: object) -> tuple[EngineCore, Detector]:
    engine = start(Settings(cache_dir=cache, precision=PrecisionName.FP32, **given))
    threads = Threads(2, engine.lanes)
    core = EngineCore(engine, threads, max_pixels=10**8, deadline_s=600)
    return core, Detector(core, threads, max_pixels=10**8, deadline_s=600, defaults=OPTIONS)


async def asked(server: Detector, pictures: list[bytes]) -> list[Answer]:
    """Ask for all pictures at once."""
    deadline = server.clock() + 600
    return await asyncio.gather(
        *(server.detect(picture, OPTIONS, deadline=deadline) for picture in pictures)
    )


def recorded(model: str, picture: str) -> Detections:
    rows = np.array(REFERENCE["answers"][model][picture], np.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize("model", ["shapes", "shapes-v2"])
async def test_the_boxes_are_those_of_the_public_package(
    model: str, backend: BackendName, tmp_path: Path
) -> None:
    core, server = detector(tmp_path, model=f"demo://{model}", backend=backend)
    names = list(REFERENCE["answers"][model])
    answers = await asked(server, [(ROOT / name).read_bytes() for name in names])
    await core.close()
    total = Agreement()
    for name, answer in zip(names, answers, strict=True):
        expected = recorded(model, name)
        total += agreement(answer.detections, expected, confidence=CONFIDENCE)
    assert total.both >= 30
    assert (total.missing, total.extra) == (0, 0)
    assert total.worst_iou >= 0.99
    assert total.worst_score <= 0.01


def head_id(head: dict[str, Any]) -> str:
    return f"{head['family']}, {head['exported']}"


@pytest.mark.parametrize("backend", [BackendName.OPENVINO, BackendName.ONNXRUNTIME])
@pytest.mark.parametrize("head", HEADS["heads"], ids=head_id)
def test_each_familys_output_means_to_us_what_it_means_to_the_package(
    make_model, tmp_path: Path, head: dict[str, Any], backend: BackendName
) -> None:
    """A graph that gives what the family's gave, with the metadata that was written beside it."""
    told = head["metadata"]
    output = np.array(head["output"], np.float32)
    if output.shape[1] == 6:  # the rows that are left out are without a score
        output = np.vstack((output, np.zeros((head["shape"][0] - len(output), 6), np.float32)))
    names = tuple(ast.literal_eval(told["names"]).values())
    model = make_model(output=output, batch=None, size=None, names=names, told=told, bright=0)
    # What was recorded is the same whatever is shown to it.
    engine = start(Settings(model=model, cache_dir=tmp_path, backend=backend, allow_blind=True))
    assert fits(engine.head, tuple(head["shape"]), len(names))
    tensor, fit = letterbox(np.zeros((*head["picture"], 3), np.uint8), engine.input_size)
    assert list(tensor.shape[:2]) == head["tensor"]
    everything = Options(HEADS["confidence"], HEADS["iou"], 300)
    found = postprocess(engine.infer(0, [tensor])[0], engine.head, fit, everything)
    expected = np.array(head["boxes"], np.float32).reshape(-1, 6)
    assert len(expected) >= 5 or engine.head is Head.END_TO_END
    assert found.classes.tolist() == expected[:, 5].tolist()
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected[:, :4], atol=2e-3)


def test_the_recorded_heads_are_of_every_family_and_kind() -> None:
    families = {head["family"][: len(head["family"]) - 1] for head in HEADS["heads"]}
    assert families == {"yolov5", "yolov8", "yolov9", "yolov10", "yolo11", "yolo12", "yolo26"}
    kinds = {head["exported"] for head in HEADS["heads"]}
    assert kinds == {"ONNX, free size", "ONNX, NMS inside", "ONNX, end to end"}
    for kind in kinds:
        boxes = [len(head["boxes"]) for head in HEADS["heads"] if head["exported"] == kind]
        assert sum(boxes) >= 10


@pytest.mark.parametrize("fit", FITS["fits"], ids=lambda fit: f"{fit['picture']} {fit['tensor']}")
def test_a_picture_lies_in_its_tensor_where_the_package_puts_it(fit: dict[str, Any]) -> None:
    size = InputSize(fit["side"], fit["side"], FITS["stride"], dynamic=fit["free"])
    width, height = fit["picture"]
    tensor, mapping = letterbox(np.full((height, width, 3), 7, np.uint8), size)
    assert list(tensor.shape[:2]) == fit["tensor"]
    rows, columns = np.nonzero((tensor != GREY).all(axis=2))
    assert [columns[0], rows[0], columns[-1], rows[-1]] == fit["inner"]
    box = mapping.to_image(np.array(FITS["box"], np.float32))
    np.testing.assert_allclose(box[0], fit["mapped"], rtol=1e-5, atol=2e-3)
