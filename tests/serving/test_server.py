"""A real server process: starting, draining, ending, and starts that cannot succeed."""

import errno
import json
import logging
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from controlplane import ports
from yoloserve.__main__ import main
from yoloserve.fronts.server import _bound
from yoloserve.http.server import most_connections
from yoloserve.model.sources import http
from yoloserve.scheduling.connections import Cut

EX_CONFIG = 78


@pytest.fixture(autouse=True)
def undo_what_serving_does_to_a_process() -> Iterator[None]:
    """Some of these tests call `main` in this process: it takes over signals and logging."""
    root = logging.getLogger()
    signals = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for each, handler in signals.items():
        signal.signal(each, handler)


def test_a_server_is_ready_when_it_says_so_and_answers(run_server, make_model, jpeg) -> None:
    server = run_server(anew=True, model=make_model(), revision="gate-7c9f1b2a", name="gate")
    told = server.logged("ready")
    assert (told["detector"], told["revision"]) == ("gate", "gate-7c9f1b2a")
    assert httpx.get(told["url"] + "health/ready", timeout=60).status_code == 200
    answer = httpx.post(told["url"] + "v1/detect", content=jpeg, timeout=60)
    assert [found["name"] for found in answer.json()["detections"]] == ["circle", "star"]
    assert answer.headers["x-yolofleet-revision"] == "gate-7c9f1b2a"


@pytest.mark.parametrize("fronts", [0, 1])
def test_as_in_the_image_it_listens_at_addresses_of_either_family(
    run_server, make_model, fronts
) -> None:
    dockerfile = Path(__file__).parents[2] / "serving_image" / "Dockerfile"
    [host] = re.findall(r"YOLOSERVE_HOST=(\S+)", dockerfile.read_text())
    port, evidence = ports.reserve(2)
    server = run_server(
        model=make_model(), host=host, port=port, evidence_port=evidence, front_processes=fronts
    )
    asked = urlsplit(server.logged("ready")["url"])
    assert asked.port == port
    here = ["127.0.0.1", "[::1]"] if has_ipv6() else ["127.0.0.1"]
    for address in here:
        for url in (
            f"http://{address}:{port}/health/ready",
            f"http://{address}:{evidence}/evidence",
        ):
            assert httpx.get(url, timeout=60).status_code == 200


def has_ipv6() -> bool:
    """Say whether this machine speaks it at all; containers often may not."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


async def test_fronts_do_without_a_family_that_the_kernel_does_not_speak(monkeypatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *others: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *others)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    (only,) = await _bound("", 0)
    assert only.getsockname()[0] == "0.0.0.0"
    only.close()


def test_a_server_of_tests_that_are_killed_ends_with_them(run_server, make_model) -> None:
    server = run_server(model=make_model())
    server.logged("ready")
    server.process.abandon()
    server.process.stderr.read()  # whose other end is closed


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_after_sigterm_it_is_not_ready_and_answers_on_until_a_second_signal(
    run_server, make_model, jpeg, again
) -> None:
    server = run_server(model=make_model(), drain_seconds=3600)
    url = server.logged("ready")["url"]
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health/ready").status_code == 200
        server.terminate()
        server.logged("draining")
        assert client.get("/health/ready").status_code == 503
        for _ in range(3):  # one connection after the other, as clients told to close one do
            answer = client.post("/v1/detect", content=jpeg)
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
    server.process.send_signal(again)
    assert server.process.wait(60) == 0


def test_it_answers_until_it_has_drained_and_ends_with_0(run_server, make_model) -> None:
    server = run_server(model=make_model(), drain_seconds=1)
    with httpx.Client(base_url=server.logged("ready")["url"], timeout=60) as client:
        told = time.monotonic()
        server.terminate()
        server.logged("draining")
        while True:
            try:
                assert client.get("/health/live").status_code == 200
            except httpx.TransportError:  # refused, or in the backlog when the listener closed
                assert time.monotonic() - told >= 1, "it stopped answering before it had drained"
                break
    assert server.process.wait(60) == 0


def test_a_request_under_way_at_the_end_gets_its_answer(
    run_server, make_model, jpeg, begin
) -> None:
    server = run_server(model=make_model(), drain_seconds=0)
    address = urlsplit(server.logged("ready")["url"])
    connection = HTTPConnection(address.hostname, address.port, timeout=60)
    begin(connection, jpeg)
    # The half request must have reached the server before the signal does: a whole one that is
    # sent after it on another connection has an answer.
    assert httpx.get(f"http://{address.netloc}/health/live", timeout=60).status_code == 200
    server.terminate()
    server.logged("draining")
    connection.send(jpeg[100:])
    assert connection.getresponse().status == 200
    connection.close()
    assert server.process.wait(60) == 0


def test_an_idle_connection_does_not_hold_up_the_end(run_server, make_model) -> None:
    server = run_server(model=make_model())
    with httpx.Client(base_url=server.logged("ready")["url"], timeout=60) as client:
        client.get("/health/live")
        server.terminate()
        assert server.process.wait(60) == 0


def test_a_server_that_still_waits_for_its_model_leaves_at_once(run_server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        model = f"http://127.0.0.1:{silent.getsockname()[1]}/gate.onnx"
        server = run_server(model=model, sha256="0" * 64)
        connection, _ = silent.accept()
        with connection:
            server.terminate()
            assert server.process.wait(60) == 0
    assert list((server.termination_log.parent / "cache").rglob(".part-*")) == []


def test_a_client_that_vanishes_harms_nobody(run_server, make_model, jpeg) -> None:
    server = run_server(model=make_model())
    address = urlsplit(server.logged("ready")["url"])
    head = f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
    for request in (head, head + jpeg[:500], head + jpeg):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(request)
    answer = httpx.post(f"http://{address.netloc}/v1/detect", content=jpeg, timeout=60)
    assert answer.status_code == 200
    server.terminate()
    assert server.process.wait(60) == 0


def test_a_server_whose_connections_are_all_taken_answers_probes_and_tells_others(
    run_server, make_model, jpeg
) -> None:
    server = run_server(model=make_model(), max_connections=2)
    url = server.logged("ready")["url"]
    address = urlsplit(url)
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
    head += b"Expect: 100-continue\r\n\r\n"
    with ExitStack() as strangers:
        for _ in range(2):
            stranger = socket.create_connection((address.hostname, address.port), timeout=60)
            strangers.enter_context(stranger)
            stranger.sendall(head)
            assert stranger.recv(99).startswith(b"HTTP/1.1 100 ")  # its body is waited for
        for path in ("health/ready", "health/live", "v2/health/ready", "metrics"):
            answer = httpx.get(url + path, timeout=60)
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
        assert "yoloserve_connections 2.0" in answer.text
        refused = httpx.post(url + "v1/detect", content=jpeg, timeout=60)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "overloaded"
        assert "retry-after" in refused.headers
    while httpx.post(url + "v1/detect", content=jpeg, timeout=60).status_code == 503:
        pass  # until the server has heard that they left


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(
    run_server, make_model, jpeg
) -> None:
    server = run_server(model=make_model(), max_body_bytes=100_000)
    url = server.logged("ready")["url"] + "v1/detect"
    refused = httpx.post(url, content=bytes(3_000_000), timeout=60)
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "too_large"
    streamed = httpx.post(url, content=iter([bytes(50_000)] * 20), timeout=60)
    assert streamed.status_code == 413
    assert httpx.post(url, content=jpeg, timeout=60).status_code == 200


def test_many_callers_at_once_all_get_answers_or_are_told_to_wait(
    run_server, make_model, jpeg
) -> None:
    # By the server's deadline next to nobody may wait; by that of the callers nobody is late.
    server = run_server(model=make_model(), deadline_ms=1)
    url = server.logged("ready")["url"] + "v1/detect"
    statuses: list[int] = []

    def call() -> None:
        answered = 0
        with httpx.Client(timeout=60, headers={"X-Deadline-Ms": "60000"}) as client:
            while answered < 8:
                statuses.append(client.post(url, content=jpeg).status_code)
                answered += statuses[-1] == 200

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) == 8 * 8


@pytest.mark.parametrize(
    ("settings", "reason", "message"),
    [
        ({"model": "file:///nowhere.onnx"}, "ModelNotFound", "there is no file /nowhere.onnx"),
        (
            {"model": "http://127.0.0.1:{nobodys_port}/gate.onnx", "sha256": "0" * 64},
            "ModelDownloadFailed",
            "cannot download",
        ),
        ({"sha256": "0" * 64}, "DigestMismatch", "give its digest (spec.model.sha256)"),
        ({"classes": '["circle", "star"]'}, "ClassesDiffer", "class 1 of the model is 'square'"),
        (
            {"model": Path(__file__).as_uri()},
            "ModelUnsupported",
            f"model {Path(__file__).as_uri()}: the file is neither an ONNX nor",
        ),
        ({"precision": "fp16"}, "BackendUnsupported", "precision fp16"),
        ({"confidence": "7"}, "InvalidSettings", "YOLOSERVE_CONFIDENCE"),
    ],
)
def test_a_start_that_cannot_succeed_says_why_in_a_line_and_in_the_termination_log(
    make_model,
    nobodys_port: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings,
    reason,
    message,
) -> None:
    monkeypatch.setattr(http.time, "sleep", lambda _: None)  # between tries of a download
    log = tmp_path / "termination-log"
    options = {"model": make_model(), "termination_log": log, "cache_dir": tmp_path} | settings
    options["model"] = options["model"].replace("{nobodys_port}", str(nobodys_port))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert main(["serve", *flags]) == EX_CONFIG
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"yoloserve: {reason}: ")
    left = json.loads(log.read_text())
    assert left["reason"] == reason
    assert message in left["message"]


def test_the_process_ends_with_78_and_a_reason_that_fits_the_termination_log(run_server) -> None:
    server = run_server(anew=True, model="file:///" + "very-" * 200 + "long/" * 900)
    server.process.communicate(timeout=60)
    assert server.process.returncode == EX_CONFIG
    assert len(server.termination_log.read_bytes()) <= 4096
    assert json.loads(server.termination_log.read_text())["reason"] == "ModelNotFound"


def test_a_termination_log_that_cannot_be_written_is_no_second_failure(tmp_path: Path) -> None:
    flags = ["--model=file:///nowhere", f"--termination-log={tmp_path}/no/such/folder/log"]
    assert main(["serve", *flags]) == EX_CONFIG


def test_a_port_in_use_is_a_failed_start(run_server, make_model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = run_server(model=make_model(), port=taken.getsockname()[1])
        _, told = server.process.communicate(timeout=60)
    assert server.process.returncode not in (0, EX_CONFIG)
    assert "address already in use" in told


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "most"),
    [
        (1024, 4096, 1832, 1000),
        (4096, 4096, None, 1000),
        (1024, 1024, 1024, 192),
        (1024, resource.RLIM_INFINITY, 1832, 1000),
        (64, 64, 64, 1),
    ],
)
def test_there_are_files_for_all_connections_or_fewer_of_these(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, most: int
) -> None:
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert most_connections(1000, streams=64) == most
    assert asked == ([] if raised is None else [(raised, hard)])


def test_every_reason_to_cut_a_connection_is_documented() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/serving.md").read_text()
    for why in Cut:
        assert f"`{why}`" in guide
