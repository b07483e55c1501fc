"""What clients, proxies and Kubernetes send that nobody here thought of first."""

import difflib
import encodings
import json
import os
import re
import tempfile
from contextlib import nullcontext
from types import SimpleNamespace
from urllib.parse import urljoin

import numpy as np
import pytest

from yoloserve import commands
from yoloserve.__main__ import main
from yoloserve.errors import InvalidParameter, InvalidSettings, TooLarge
from yoloserve.http import inference_protocol
from yoloserve.http.dependencies import class_indices
from yoloserve.http.inference_protocol import ALWAYS_PARSED_BYTES, Limits, read
from yoloserve.http.options import OPTIONS, refuse_unknown
from yoloserve.settings import Settings, passed_over
from yoloserve.telemetry import logs
from yoloserve.telemetry.traffic import Traffic

FORM = {"Content-Type": "multipart/form-data; boundary=q"}


def part(name: str, content: bytes, more: str = "", kind: str = "") -> bytes:
    head = f'--q\r\nContent-Disposition: form-data; name="{name}"{more}\r\n'
    head += f"Content-Type: {kind}\r\n" if kind else ""
    return head.encode() + b"\r\n" + content + b"\r\n"


# JSON


def tensor(data: str, shape: str = "[3, 64, 64]") -> bytes:
    told = (
        f'{{"inputs": [{{"name": "image", "datatype": "FP32", "shape": {shape}, "data": {data}}}]}}'
    )
    return told.encode()


def small() -> Limits:
    return Limits(4, 10**6, 3 * 64 * 64)


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_may_be_numbers_up_to_one_picture_of_the_models_size(channels_last) -> None:
    pixels = np.full((3, 64, 64), 0.12345678)
    nested = json.dumps((pixels.reshape(64, 64, 3) if channels_last else pixels).tolist())
    assert len(nested) > ALWAYS_PARSED_BYTES
    (source,) = read(tensor(nested), None, small()).sources
    assert source.make().shape == (64, 64, 3)


@pytest.mark.parametrize(
    "bomb",
    [
        "[" + ",".join(["0"] * 200_000) + "]",
        "[" + ",".join(["[]"] * 100_000) + "]",
        "[" + ",".join(["{}"] * 20_000) + ',"' + "a" * 65_536 + '"]',
        "{" + ",".join(f'"{n}":0' for n in range(20_000)) + "}",
        "[" * 100_000 + "]" * 100_000,
    ],
    ids=["numbers", "lists", "objects", "keys", "depth"],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_bomb_of_values_is_refused_before_it_is_parsed(bomb, binary, monkeypatch) -> None:
    monkeypatch.setattr(inference_protocol, "orjson", SimpleNamespace(loads=pytest.fail))
    body = tensor(bomb)
    with pytest.raises(TooLarge, match=r"binary_data_size.*base64"):
        read(body + b"x" * binary, len(body) if binary else None, small())


def test_a_long_shape_is_not_multiplied() -> None:
    with pytest.raises(InvalidParameter, match="3000 sizes"):
        read(tensor("[]", str([2**30] * 3000)), None, small())


async def test_a_picture_in_json_is_told_how_pictures_come(serve) -> None:
    async with serve() as served:
        for length in (10, 20_000):
            body = b'{"image": "%s"}' % (b"A" * length)
            response = await served.detect(body, **{"Content-Type": "Application/JSON; charset=x"})
            assert response.status_code in (400, 413)
            assert "send one as it is" in response.json()["error"]["message"]


# options


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?conf=0.9", "did you mean confidence"),
        ("?min_confidence=0.9", "did you mean confidence"),
        ("?Confidence=0.9", "did you mean confidence"),
        ("?zzz", "there are agnostic_nms"),
        ("?iou=0.1&iou=0.9", "iou: given 2 times"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch"])
async def test_a_parameter_that_means_nothing_is_refused(serve, jpeg, path, query, told) -> None:
    async with serve() as served:
        response = await served.client.post(path + query, files={"file": jpeg})
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]


@pytest.mark.parametrize("length", [65, 1_000_000])
def test_nothing_near_a_long_name_is_looked_for(monkeypatch, length) -> None:
    """32 KB, unpacked to a name of 33 MB, cost 5 s and 1.4 GB."""
    monkeypatch.setattr(difflib, "get_close_matches", lambda *_: pytest.fail("it was looked for"))
    with pytest.raises(InvalidParameter, match=r"is no parameter here; there are agnostic_nms"):
        refuse_unknown(["a" * length], OPTIONS, "parameter")


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch"])
@pytest.mark.parametrize(
    ("field", "told"),
    [("confidence", r"\?confidence="), ("min_confidence", "no field of a form"), ("a", "file")],
)
async def test_a_field_that_means_nothing_is_refused(serve, jpeg, path, field, told) -> None:
    body = part("image", jpeg, '; filename="x"') + part(field, b"0" * 2_000_000) + b"--q--"
    async with serve() as served:
        response = await served.client.post(path, content=body, headers=FORM)
    assert response.status_code == 400
    assert re.search(told, response.json()["error"]["message"])


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch"])
@pytest.mark.parametrize("more", ["", "; filename*=UTF-8''%D1%84.jpg", '; filename="x.jpg"'])
@pytest.mark.parametrize("kind", ["", "image/jpeg"])
async def test_a_part_needs_no_file_name(serve, jpeg, path, more, kind) -> None:
    async with serve() as served:
        body = part("file", jpeg + bytes(1_200_000), more, kind) + b"--q--"
        response = await served.client.post(path, content=body, headers=FORM)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch"])
@pytest.mark.parametrize(
    "told",
    [
        "; charset=undefined",  # a codec of Python that decodes nothing
        "; charset=unicode_escape",  # makes half a character, which no answer can hold
        "; charset=utf-7",
        "; charset=idna",
        "; charset=hex",
        "; charset=a\0b",
        f"; charset={'x' * 300}",
        "; charset=",
        "; Charset=ISO-8859-1",
    ],
)
async def test_a_form_is_read_whatever_charset_it_names(serve, jpeg, path, told) -> None:
    """Names are in UTF-8, whatever they say that they are in (RFC 7578)."""
    name = "straße ☃ \\ud800 +2AA-.jpg"
    body = part("file", jpeg, f'; filename="{name}"') + b"--q--"
    looked_up = set(encodings._cache)
    async with serve() as served:
        kind = {"Content-Type": FORM["Content-Type"] + told}
        response = await served.client.post(path, content=body, headers=kind)
        assert response.status_code == 200, response.text
        if path.endswith("batch"):
            assert response.json()["results"][0]["file"] == name
        assert served.serving.metrics.requests.counts[Traffic.REQUEST]["internal"] == 0
    assert not set(encodings._cache) - looked_up  # where each name stays for ever


@pytest.mark.parametrize("boundary", ['"a b"', "a+b", '"(:)"', "'a'", "\xe9", '"a;charset=hex"'])
async def test_a_boundary_may_be_of_many_signs(serve, jpeg, boundary: str) -> None:
    body = part("file", jpeg).replace(b"--q", b"--" + boundary.strip('"').encode("latin-1"))
    body += b"--" + boundary.strip('"').encode("latin-1") + b"--"
    kind = f"multipart/form-data; charset=hex; boundary={boundary}".encode("latin-1")
    async with serve() as served:
        response = await served.client.post(
            "/v1/detect", content=body, headers={b"Content-Type": kind}
        )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "boundary", ['"', '"q', 'q"; charset=hex', "q\\", '"\\"q"', "q" * 300, '""']
)
async def test_a_boundary_that_is_none_is_told(serve, jpeg, boundary: str) -> None:
    kind = {"Content-Type": f"multipart/form-data; charset=undefined; boundary={boundary}"}
    async with serve() as served:
        body = part("file", jpeg) + b"--q--"
        response = await served.client.post("/v1/detect", content=body, headers=kind)
    assert response.status_code == 400, response.text
    assert "the form cannot be read" in response.json()["error"]["message"]


async def test_a_length_may_begin_with_any_number_of_zeros(serve, jpeg) -> None:
    """Python itself refuses to read thousands of digits."""
    async with serve(max_body_bytes=len(jpeg)) as served:
        declared = {"Content-Length": "0" * 5000 + str(len(jpeg))}
        assert (await served.detect(jpeg, **declared)).status_code == 200
        for length in (str(len(jpeg) + 1), "9" * 5000, "0" * 5000 + "9" * 5000):
            response = await served.detect(jpeg, **{"Content-Length": length})
            assert response.status_code == 413, response.text


def test_classes_are_found_by_name_though_doubled_or_with_blanks() -> None:
    assert class_indices("car, traffic light", ("car", " traffic light ", "car")) == {0, 1, 2}
    assert class_indices("bus,truck,car", ("car", "bus, truck", "bus")) == {0, 1}
    assert class_indices("bus, 0", ("car", "bus, truck", "bus")) == {0, 2}


def test_more_classes_than_there_are_names_for_are_not_looked_at() -> None:
    """Each word was compared with each name, and then the rest moved: 60 KB took two seconds."""
    known = ("bus, truck", "car", "car")
    assert class_indices("bus, truck, car, 0, 1, 2", known) == {0, 1, 2}
    with pytest.raises(InvalidParameter, match="classes: 30001 names; the model has 3 classes"):
        class_indices("0," * 30_000, known)
    with pytest.raises(InvalidParameter, match=r"no class '999.*999'; there are bus, truck, car"):
        class_indices("9" * 5000, known)


EMPTY = [
    (bytes(40), {"binary_data_size": 40}, None),
    (b"", {}, [""] * 10),
    (b"", {}, [[""] * 5, [""] * 5]),
]


@pytest.mark.parametrize(("binary", "parameters", "data"), EMPTY)
def test_no_more_images_are_made_than_may_be_sent(binary, parameters, data, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(inference_protocol, "_base64", made.append)
    image = {"name": "image", "datatype": "BYTES", "shape": [10], "parameters": parameters}
    header = json.dumps({"inputs": [image | ({"data": data} if data else {})]}).encode()
    with pytest.raises(InvalidParameter, match="send 1 to 4 at a time"):
        read(header + binary, len(header), small())
    assert not made


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 10**6},
        {"outputs": [{"name": "x" * 10**6}]},
        {"parameters": {"iou": "x" * 10**6}},
        {"parameters": {"agnostic_nms": "x" * 10**6}},
        {"parameters": {"classes": "x" * 10**6}},
        {"parameters": {"timeout": "x" * 10**6}},
        {"name": "x" * 10**6},
        {"datatype": ["x" * 10**6]},
        {"shape": ["x" * 10**6]},
        {"parameters_of_it": {"binary_data_size": "x" * 10**6}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_refusal_does_not_send_back_what_it_refuses(serve, change) -> None:
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}
    for name in change.keys() & {"name", "datatype", "shape"}:
        image[name] = change[name]
    image["parameters"] = change.get("parameters_of_it", {})
    async with serve() as served:
        told = change | {"inputs": [image]}
        response = await served.client.post("/v2/models/gate/infer", json=told)
        unknown = await served.client.get("/v2/models/" + "x" * 10**4)
    assert response.status_code == 400
    assert len(response.content) < 400
    assert len(unknown.content) < 400


# proxies and monitors


async def test_every_get_answers_head(serve) -> None:
    async with serve() as served:
        paths = [path for path, told in served.app.openapi()["paths"].items() if "get" in told]
        paths += ["/", "/docs", "/openapi.json", "/page/page.js"]
        for path in (path.format(model="gate", version="1") for path in paths):
            asked = [await served.client.request(verb, path) for verb in ("GET", "HEAD")]
            assert [each.status_code for each in asked] == [200, 200], path


async def test_no_redirect_leads_away_from_the_proxy(serve) -> None:
    async with serve() as served:
        response = await served.client.post("/v1/detect/")
    assert response.status_code == 404
    assert "location" not in response.headers


async def test_the_docs_are_whole_below_any_prefix(serve) -> None:
    async with serve() as served:
        page = (await served.client.get("/docs")).text
        found = re.findall(r"""(?:src|href|url)[=:]\s?["']([^"']+)["']""", page)
        assert len(found) >= 4
        for reference in found:
            url = urljoin("https://example.com/gate/docs", reference)
            assert url.startswith("https://example.com/gate/")
            path = url.removeprefix("https://example.com/gate")
            assert (await served.client.get(path)).status_code == 200
        (server,) = (await served.client.get("/openapi.json")).json()["servers"]
    assert urljoin("https://example.com/gate/openapi.json", server["url"]).endswith("/gate/")


async def test_a_failure_is_counted_as_one_and_has_its_ids(serve, jpeg, monkeypatch) -> None:
    counted = []
    async with serve() as served:
        monkeypatch.setattr(served.serving.metrics, "served", lambda *told: counted.append(told[2]))
        monkeypatch.setattr(served.serving, "bodies", None)
        response = await served.detect(jpeg, **{"X-Request-Id": "mine"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert response.headers["x-request-id"]
    assert response.headers["traceparent"]
    assert counted == [500]


# surroundings


def test_a_service_of_our_name_is_no_setting(monkeypatch) -> None:
    monkeypatch.setenv("YOLOSERVE_PORT", "tcp://10.96.12.7:8080")
    monkeypatch.setenv("YOLOSERVE_SERVICE_PORT", "8080")
    assert Settings.read().port == 8080
    assert Settings.read(port="99").port == 99
    with pytest.raises(InvalidSettings, match="YOLOSERVE_PORT"):
        Settings.read(port="tcp://10.96.12.7:8080")


def test_a_misspelt_setting_is_told_with_the_nearest(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith("YOLOSERVE_"):
            monkeypatch.delenv(name)
    told = {"CONFIDENSE": "0.9", "zzz": "1", "IOU": "0.5", "model": "demo://shapes"}
    links = {
        "PORT": "tcp://10.96.12.7:8080",
        "GATE_PORT": "tcp://10.96.12.7:8080",
        "SERVICE_HOST": "10.96.12.7",
        "GATE_SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "PORT_8080_TCP_ADDR": "10.96.12.7",
    }
    for name, value in (told | links).items():
        monkeypatch.setenv(f"YOLOSERVE_{name}", value)
    found = {"YOLOSERVE_CONFIDENSE": "YOLOSERVE_CONFIDENCE", "YOLOSERVE_zzz": ""}
    assert passed_over(os.environ) == found

    warned = []
    monkeypatch.setattr(commands.log, "warning", lambda _, extra: warned.append(extra))
    monkeypatch.setattr(logs, "configured", nullcontext)
    monkeypatch.setattr(commands, "_serve", lambda *_: 0)
    commands.serve(Settings.read())
    assert {each["variable"]: each["nearest"] for each in warned} == found


def test_no_temporary_directory_is_needed_to_start(monkeypatch, capsys) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    assert "--cache-dir" in capsys.readouterr().out
    assert Settings.read(cache_dir="/nowhere/x").cache_dir.name == "x"
