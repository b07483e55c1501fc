"""The Open Inference Protocol: what it says on the wire, and that Triton's client is content."""

import base64
import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from yoloserve.core import WARM_UP_RUNS
from yoloserve.errors import InvalidParameter

BOXES = [[55.0, 32.5, 105.0, 57.5], [20.0, 55.0, 40.0, 75.0]]


def request(jpeg: bytes, **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(jpeg).decode()]
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    return {"id": "frame-17", "inputs": [image | changes.pop("image", {})]} | changes


async def infer(served, told: Any, path: str = "/v2/models/gate/infer"):
    return await served.client.post(path, json=told)


async def test_images_in_json_give_tensors_in_json(serve, jpeg: bytes) -> None:
    async with serve() as served:
        answer = await infer(served, request(jpeg))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-yolofleet-revision"] == "gate-1234"
    told = answer.json()
    assert (told["model_name"], told["model_version"], told["id"]) == ("gate", "1", "frame-17")
    outputs = {each.pop("name"): each for each in told["outputs"]}
    found = json.loads(outputs.pop("json")["data"][0])
    assert [each["name"] for each in found["detections"]] == ["circle", "star"]
    scores = outputs.pop("det_scores")
    assert scores["data"] == pytest.approx([0.9, 0.6])
    assert outputs == {
        "num_dets": {"datatype": "INT32", "shape": [1, 1], "data": [2]},
        "det_boxes": {"datatype": "FP32", "shape": [1, 2, 4], "data": [*BOXES[0], *BOXES[1]]},
        "det_classes": {"datatype": "INT32", "shape": [1, 2], "data": [0, 2]},
    }


async def test_parameters_and_outputs_are_as_asked_for(serve, jpeg: bytes) -> None:
    async with serve() as served:
        for parameters, count in (
            ({"confidence": 0.1}, 3),
            ({"classes": "star"}, 1),
            ({"max_detections": 1}, 1),
            ({"confidence": 0.95}, 0),
            ({"sequence_id": 3, "priority": 1, "confidence": 0.7}, 1),
            ({"sequence_start": True, "sequence_end": False, "binary_data_output": False}, 2),
            ({"triton_enable_empty_final_response": True, "content_type": "np"}, 2),
        ):
            outputs = [{"name": "det_scores"}, {"name": "num_dets"}]
            asked = request(jpeg, parameters=parameters, outputs=outputs)
            told = (await infer(served, asked)).json()["outputs"]
            assert [each["name"] for each in told] == ["det_scores", "num_dets"]
            assert told[1]["data"] == [count]
            assert told[0]["shape"] == [1, count]


async def test_one_place_has_one_class_where_that_is_wanted(serve, backend, jpeg) -> None:
    there = [[32, 32, 20, 10, 0.9, 0.1, 0], [33, 32, 20, 10, 0, 0, 0.6]]
    backend.output = np.array(there, np.float32).T
    async with serve() as served:
        for parameters, count in (({}, 2), ({"agnostic_nms": True}, 1)):
            asked = request(jpeg, parameters=parameters, outputs=[{"name": "num_dets"}])
            assert (await infer(served, asked)).json()["outputs"][0]["data"] == [count]


async def test_images_with_different_numbers_of_objects_are_filled_up(serve, jpeg) -> None:
    async with serve() as served:
        told = request(
            b"", image={"shape": [2, 9, 9, 3], "datatype": "UINT8", "data": [0] * 2 * 243}
        )
        answer = (await infer(served, told)).json()
    assert [each["shape"] for each in answer["outputs"]] == [[2, 1], [2, 2, 4], [2, 2], [2, 2], [2]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": []}, "expected one"),
        ({"inputs": None}, "expected a list"),
        ({"inputs": [3]}, "expected an object"),
        ({"image": {"name": "images"}}, "the input is 'image'"),
        ({"image": {"datatype": "INT64"}}, "BYTES, UINT8 or FP32"),
        ({"image": {"shape": [2]}}, "1 images were sent"),
        ({"image": {"shape": [-1]}}, "positive numbers"),
        ({"image": {"shape": ["1"]}}, "positive numbers"),
        ({"image": {"shape": [True]}}, "positive numbers"),
        ({"image": {"shape": None}}, "expected a list"),
        ({"image": {"data": ["no base64!"]}}, "base64"),
        ({"image": {"data": [3]}}, "expected a string"),
        ({"image": {"data": []}}, "0 images were sent"),
        ({"image": {"data": None}}, "expected a list"),
        ({"image": {"data": ["AA=="] * 17, "shape": [17]}}, "1 to 16 at a time"),
        ({"image": {"shape": [2, 2], "datatype": "UINT8"}}, "expected [n, h, w, 3]"),
        ({"image": {"shape": [2, 2, 3], "datatype": "FP32"}}, "expected [n, 3, h, w]"),
        ({"image": {"shape": [2, 2, 3], "datatype": "UINT8", "data": [1]}}, "is not 1 numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": ["a"]}}, "expected numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [[1], 2]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [1, None, 3]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": ["1", "2", "3"]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [True] * 3}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [True, 1, 2]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [[1, 2], [3]]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": [[], [[]]]}}, "numbers"),
        ({"image": {"shape": [1, 1, 3], "datatype": "UINT8", "data": []}}, "is not 0 numbers"),
        ({"image": {"parameters": {"binary_data_size": 5}}}, "0 bytes follow"),
        ({"image": {"parameters": {"binary_data_size": False}}}, "0 bytes follow"),
        ({"outputs": [{"name": "masks"}]}, "there are num_dets"),
        ({"outputs": [{}]}, "expected a string"),
        ({"id": 3}, "id: expected a string"),
        ({"parameters": []}, "expected an object"),
        ({"parameters": {"confidence": 2}}, "confidence: expected 0 to 1"),
        ({"parameters": {"confidence": True}}, "confidence"),
        ({"parameters": {"max_detections": 1.5}}, "max_detections"),
        ({"parameters": {"classes": ["star"]}}, "classes"),
        ({"parameters": {"classes": "hexagon"}}, "no class 'hexagon'"),
        ({"parameters": {"agnostic_nms": "yes"}}, "expected true or false"),
        ({"parameters": {"timeout": "soon"}}, "timeout"),
        ({"parameters": {"timeout": True}}, "timeout"),
        ({"parameters": {"binary_data_output": "false"}}, "expected true or false"),
        ({"parameters": {"conf": 0.9}}, "did you mean confidence?"),
        ({"parameters": {"score_threshold": 0.9}}, "'score_threshold' is no parameter"),
        ({"image": {"parameters": {"shared_memory_region": "r"}}}, "parameter of an input"),
        ({"outputs": [{"name": "json", "parameters": {"classification": 3}}]}, "of an output"),
    ],
)
async def test_what_cannot_be_meant_is_told(serve, jpeg: bytes, change: dict, told: str) -> None:
    async with serve() as served:
        answer = await infer(served, request(jpeg, **change))
        assert served.backend.calls == WARM_UP_RUNS
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert list(answer.json()) == ["error"]


async def test_null_is_as_if_it_were_not_there(serve, jpeg: bytes) -> None:
    nothing = {
        "id": None,
        "parameters": None,
        "image": {"parameters": None},
        "outputs": [{"name": "num_dets", "parameters": None}],
    }
    options = "confidence", "iou", "classes", "max_detections", "agnostic_nms", "timeout"
    unsaid = {
        "parameters": dict.fromkeys((*options, "binary_data_output")),
        "image": {"parameters": {"binary_data_size": None}},
        "outputs": [{"name": "num_dets", "parameters": {"binary_data": None}}],
    }
    async with serve() as served:
        for change in (nothing, unsaid, {"outputs": None}):
            answer = await infer(served, request(jpeg, **change))
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == [2]
            assert ("id" in answer.json()) == (change is not nothing)


async def test_a_timeout_is_the_deadline(serve, jpeg: bytes) -> None:
    async with serve() as served:
        answer = await infer(served, request(jpeg, parameters={"timeout": 1}))
        assert answer.status_code == 504
        assert answer.json()["error"].startswith("deadline_exceeded: ")
        answer = await infer(served, request(jpeg, parameters={"timeout": 60_000_000}))
        assert answer.status_code == 200


async def test_too_many_pixels_are_refused(serve) -> None:
    image = {"shape": [1, 1, 30_000, 3], "datatype": "UINT8", "data": []}
    async with serve(max_pixels=20_000) as served:
        answer = await infer(served, request(b"", image=image))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/yard/infer", 404),
        ("/v2/models/gate/versions/2/infer", 404),
        ("/v2/models/gate/versions/1/infer", 200),
    ],
)
async def test_there_is_one_model_in_one_version(serve, jpeg, path: str, status: int) -> None:
    async with serve() as served:
        answer = await infer(served, request(jpeg), path)
        described = await served.client.get(path.removesuffix("/infer"))
    assert answer.status_code == described.status_code == status


async def test_an_image_alone_is_a_request_and_its_answer_is_binary(serve, jpeg: bytes) -> None:
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    async with serve() as served:
        answer = await served.client.post("/v2/models/gate/infer", content=jpeg, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.content[:length])
    sizes = [each["parameters"]["binary_data_size"] for each in told["outputs"]]
    assert length + sum(sizes) == len(answer.content)
    assert struct.unpack_from("<I", answer.content, length)[0] == 2


@pytest.mark.parametrize(
    ("length", "body", "told"),
    [
        ("99999", b"{}", "of a body of 2 bytes"),
        ("-1", b"{}", "is no length"),
        ("\u0663", b"{}", "is no length"),
        ("2", b"{", "of a body of 1 bytes"),
        ("1", b"{}", "not JSON"),
        ("2", b"[]", "expected an object"),
    ],
)
async def test_a_wrong_length_is_told(serve, length: str, body: bytes, told: str) -> None:
    async with serve() as served:
        headers = {"Inference-Header-Content-Length": length.encode()}
        answer = await served.client.post("/v2/models/gate/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


@pytest.mark.parametrize("data", [b"\1", b"\5\0\0\0abc", b"\xff\xff\xff\xff", b""])
async def test_broken_elements_are_told(serve, data: bytes) -> None:
    image = {"data": None, "parameters": {"binary_data_size": len(data)}}
    told = request(b"", image=image)
    del told["inputs"][0]["data"]
    header = json.dumps(told).encode()
    async with serve() as served:
        answer = await served.client.post(
            "/v2/models/gate/infer",
            content=header + data,
            headers={"Inference-Header-Content-Length": str(len(header))},
        )
    assert answer.status_code == 400


async def test_statistics_count_as_tritons_do(serve, jpeg: bytes) -> None:
    async with serve() as served:
        await infer(served, request(jpeg))
        await infer(served, request(b"no image"))
        (told,) = (await served.client.get("/v2/models/gate/stats")).json()["model_stats"]
        text = (await served.client.get("/metrics")).text
    assert (told["inference_count"], told["execution_count"]) == (1, 1)
    stats = told["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (1, 1)
    assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0
    assert 'nv_inference_request_success_total{model="gate",version="1"} 1.0' in text
    assert 'nv_inference_request_failure_total{model="gate",reason="OTHER",version="1"} 1.0' in text


async def test_draining_is_told_to_those_who_ask_by_this_protocol(serve) -> None:
    async with serve() as served:
        for path in ("/v2/health/ready", "/v2/models/gate/ready"):
            answer = await served.client.get(path)
            assert (answer.status_code, answer.json()["ready"]) == (200, True)  # KServe's reads it
        served.serving.drain()
        for path in ("/v2/health/ready", "/v2/models/gate/ready"):
            answer = await served.client.get(path)
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert (await served.client.get("/v2/health/live")).json() == {"live": True}


# From here on with the public client and a server of its own.


@pytest.fixture(scope="module")
def client(run_server, make_model):
    server = run_server(model=make_model(), name="gate", deadline_ms=20_000)
    url = server.logged("ready")["url"].removeprefix("http://").rstrip("/")
    # As many connections as are asked for at once: an answer whose body is unread keeps its own,
    # and the client does not hand out the next one in order.
    with triton.InferenceServerClient(url, concurrency=4) as client:
        yield client


def image_of(data: np.ndarray, datatype: str) -> triton.InferInput:
    image = triton.InferInput("image", list(data.shape), datatype)
    image.set_data_from_numpy(data)
    return image


def test_tritons_client_sees_a_server_and_its_model(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("gate")
    assert client.is_model_ready("gate", "1.2")
    assert client.is_model_ready("gate", "1")
    assert client.get_model_metadata("gate")["versions"] == ["1"]  # perf_analyzer wants a number
    assert not client.is_model_ready("yard")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata("gate")
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    config = client.get_model_config("gate")
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert [each["name"] for each in config["output"]] == [
        each["name"] for each in described["outputs"]
    ]
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_boxes_for_encoded_images(client, jpeg: bytes, binary: bool) -> None:
    before = client.get_inference_statistics("gate")["model_stats"][0]["inference_count"]
    images = np.array([jpeg, jpeg], np.object_)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("num_dets", "det_boxes", "det_scores", "det_classes", "json")
    ]
    answer = client.infer("gate", [image_of(images, "BYTES")], outputs=outputs, request_id="7")
    assert answer.get_response()["id"] == "7"
    assert answer.as_numpy("num_dets").tolist() == [[2], [2]]
    assert answer.as_numpy("det_boxes").tolist() == [BOXES, BOXES]
    assert answer.as_numpy("det_classes").tolist() == [[0, 2], [0, 2]]
    assert answer.as_numpy("det_scores").dtype == np.float32
    assert json.loads(answer.as_numpy("json")[0])["image"] == {"width": 160, "height": 90}
    after = client.get_inference_statistics("gate")["model_stats"][0]["inference_count"]
    assert after - before == 2


@pytest.mark.parametrize("answers", ["gzip", "deflate", None])
@pytest.mark.parametrize("asks", ["gzip", "deflate", None])
def test_tritons_client_may_compress(client, picture, asks: str, answers: str) -> None:
    rgb = image_of(picture[:, :, ::-1].copy(), "UINT8")
    answer = client.infer(
        "gate",
        [rgb],
        request_compression_algorithm=asks,
        response_compression_algorithm=answers,
    )
    assert answer.as_numpy("det_boxes").tolist() == [BOXES]
    assert json.loads(answer.as_numpy("json")[0])["image"] == {"width": 160, "height": 90}


def test_tritons_client_may_send_pixels(client, picture) -> None:
    rgb = picture[:, :, ::-1].copy()
    planes = (rgb.transpose(2, 0, 1) / 255).astype(np.float32)
    for data, datatype in ((rgb, "UINT8"), (rgb[None], "UINT8"), (planes, "FP32")):
        answer = client.infer("gate", [image_of(data, datatype)])
        assert answer.as_numpy("det_boxes").tolist() == [BOXES]


def test_tritons_client_may_ask_for_several_at_once(client, jpeg: bytes) -> None:
    image = image_of(np.array([jpeg], np.object_), "BYTES")
    waiting = [client.async_infer("gate", [image]) for _ in range(4)]
    assert [each.get_result().as_numpy("num_dets")[0, 0] for each in waiting] == [2] * 4


def test_tritons_client_is_told_what_is_wrong(client, jpeg: bytes) -> None:
    image = image_of(np.array([jpeg[:100]], np.object_), "BYTES")
    with pytest.raises(InferenceServerException, match="invalid_image"):
        client.infer("gate", [image])
    whole = image_of(np.array([jpeg], np.object_), "BYTES")
    with pytest.raises(InferenceServerException, match="deadline_exceeded"):
        client.infer("gate", [whole], timeout=1)
    with pytest.raises(InferenceServerException, match="unknown_model"):
        client.infer("yard", [whole])


def pixels_of(data: list[Any]) -> np.ndarray:
    from yoloserve.http.inference_protocol import Limits, read

    image = {"name": "image", "shape": [1, 1, 3], "datatype": "UINT8", "data": data}
    (source,) = read(json.dumps({"inputs": [image]}).encode(), None, Limits(4, 10**6)).sources
    return source.make()


@pytest.mark.parametrize(
    "data", [[3, 2, 1], [[[3, 2, 1]]], [[3], [2], [1.4]], [10**30, 2**63, -(2**62)]]
)
def test_numbers_may_be_nested_and_of_any_size(data: list[Any]) -> None:
    expected = [1, 2, 3] if data[0] != 10**30 else [0, 255, 255]
    assert pixels_of(data).tolist() == [[expected]]


@pytest.mark.parametrize("where", [lambda data: data, lambda data: [data]])
def test_long_text_among_numbers_takes_no_more_than_itself(where) -> None:
    """Numpy would write each number as wide as the text is."""
    data = where(["x" * 100_000, *[1] * 100])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameter, match="expected numbers"):
            pixels_of(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


async def test_pixels_arrive_in_the_colours_they_were_sent_in(picture) -> None:
    from yoloserve.http.inference_protocol import Limits, read

    rgb = picture[:, :, ::-1]
    floats = (rgb.transpose(2, 0, 1) / 255).astype(np.float32)
    for data, datatype in ((rgb, "UINT8"), (floats, "FP32")):
        raw = np.ascontiguousarray(data).tobytes()
        image = {
            "name": "image",
            "shape": list(data.shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": len(raw)},
        }
        header = json.dumps({"inputs": [image]}).encode()
        (source,) = read(header + raw, len(header), Limits(4, 10**6)).sources
        np.testing.assert_array_equal(source.make(), picture)
