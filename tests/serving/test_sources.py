"""Bringing models from elsewhere: resumed, tried again, shared, and never half."""

import errno
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from yoloserve.errors import (
    DigestMismatch,
    InvalidSettings,
    ModelDownloadFailed,
    ModelNotFound,
    ModelUnsupported,
    StartupFailure,
)
from yoloserve.model.formats import Format
from yoloserve.model.sources import http as source
from yoloserve.model.sources import oci, pace, store
from yoloserve.model.weights import fetch
from yoloserve.settings import Settings

ROOT = Path(__file__).parents[2]
# An ONNX file: version, producer, an empty graph, and much documentation.
MODEL = b"\x08\x08\x12\x04ONNX\x3a\x00\x32\x80\xc0\x3e" + bytes(range(256)) * 4000
SHA256 = hashlib.sha256(MODEL).hexdigest()
ETAG = '"v1"'
SOON_S = 0.01  # a server of this process looks so often whether it is to end


@dataclass
class Remote:
    """A real HTTP server in this process that serves one file, well or badly."""

    address: str = ""
    answers: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)  # of the next answers, before good ones
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    etag: str | None = ETAG
    etag_of_ranges: Callable[[str | None], str | None] = lambda etag: etag
    authorized: Callable[[str], bool] = lambda _: True
    challenge: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    knows_if_range: bool = True
    decided: Callable[[], None] = lambda: None  # called before an answer that is decided goes out
    hold: threading.Event | None = None  # half of the answer is sent before, half after it
    endless: dict[str, str] = field(default_factory=dict)  # what is moved, by much else to read
    drips_s: float = 0  # between each byte of a body and the next
    refuses: bool = False  # every range, in many words
    brings: Callable[[bytes], bytes] = lambda part: part  # what is sent of a range
    tells_size: bool = True
    hints: set[str] = field(default_factory=set)  # what is answered by 103 and nothing else

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.asked]


@pytest.fixture
def remote() -> Iterator[Remote]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.asked.append((self.path, headers))
            path = self.path.partition("?")[0]
            if not told.authorized(headers.get("authorization", "")) and path != "/token":
                return self.answer(401, b"", {"WWW-Authenticate": told.challenge})
            while path in told.hints:  # until the other side leaves
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                threading.Event().wait(SOON_S)
            if path in told.endless:
                return self.move(told.endless[path])
            if told.statuses:
                return self.answer(told.statuses.pop(0), b"", {})
            if path not in told.answers:
                return self.answer(404, b"", {})
            body, status, extra = told.answers[path], 200, {}
            asked = headers.get("range", "")
            if told.refuses and asked:
                return self.answer(403, body, {})
            if etag := told.etag_of_ranges(told.etag) if asked else told.etag:
                extra["ETag"] = etag
            this_one = headers.get("if-range", told.etag) == told.etag or not told.knows_if_range
            if asked.startswith("bytes=") and this_one:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                if int(first) >= len(body):
                    return self.answer(416, b"", {})
                end = int(last) if last else len(body) - 1
                extra["Content-Range"] = f"bytes {first}-{end}/{len(body)}"
                body, status = told.brings(body[int(first) : end + 1]), 206
            told.decided()
            return self.answer(status, body, extra)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if told.tells_size:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if told.hold and status in (200, 206):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                told.hold.wait(60)
                body = body[len(body) // 2 :]
            if told.drips_s:
                for each in body:
                    self.wfile.write(bytes([each]))
                    threading.Event().wait(told.drips_s)
                return
            if told.cuts and status in (200, 206):
                body = body[: told.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def move(self, where: str) -> None:
            self.send_response(302)
            self.send_header("Location", where)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(10**9))
            self.end_headers()
            self.wfile.write(b"no gzip, and so on")
            self.rfile.read(1)  # until the other side leaves
            self.close_connection = True

        do_HEAD = do_GET  # noqa: N815 (the name is the base class's)

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # a client that was killed
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    class Listening(http.server.ThreadingHTTPServer):
        daemon_threads = True

    told = Remote()
    with Listening(("127.0.0.1", 0), Handler) as listening:
        told.address = f"127.0.0.1:{listening.server_port}"
        told.answers["/gate.onnx"] = MODEL
        thread = threading.Thread(target=listening.serve_forever, args=(SOON_S,))
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(source.time, "sleep", waited.append)
    return waited


@pytest.fixture
def asking(remote: Remote, tmp_path: Path) -> Callable[..., Settings]:
    def settings(**given: Any) -> Settings:
        there = {"model": f"http://{remote.address}/gate.onnx", "cache_dir": tmp_path / "cache"}
        wanted = there | given
        if str(wanted["model"]).startswith("http://"):
            wanted.setdefault("sha256", SHA256)
        return Settings(**wanted)

    return settings


def in_cache(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "cache").rglob("*") if not p.name.startswith(".lock"))


def test_a_download_that_breaks_off_goes_on_where_it_was(remote, asking, waits) -> None:
    remote.cuts = [300_000, 400_000]
    assert fetch(asking(), Format.ONNX).content == MODEL
    assert remote.ranges == [None, "bytes=300000-", "bytes=700000-"]
    assert [headers.get("if-range") for _, headers in remote.asked] == [None, ETAG, ETAG]


CHANGED = MODEL.replace(b"ONNX", b"onnx")  # of the same size, as a model that was trained anew
assert MODEL != CHANGED
SHORTER = b"\x08\x08\x12\x04ONNX\x3a\x00"


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_has_changed_meanwhile_is_begun_anew(
    remote, asking, waits, knows_if_range: bool
) -> None:
    remote.cuts = [300_000]
    remote.knows_if_range = knows_if_range
    real_sleep = waits.append

    def change(seconds: float) -> None:
        real_sleep(seconds)
        remote.etag, remote.answers["/gate.onnx"] = '"v2"', CHANGED

    source.time.sleep = change  # restored by `waits`
    sha256 = hashlib.sha256(CHANGED).hexdigest()
    assert fetch(asking(sha256=sha256), Format.ONNX).content == CHANGED


def test_an_unhappy_server_is_asked_again_with_more_patience_each_time(
    remote, asking, waits
) -> None:
    remote.statuses = [500, 503, 429]
    assert fetch(asking(), Format.ONNX).content == MODEL
    assert waits == [1, 2, 4]


def test_a_server_that_stays_unhappy_is_told(remote, asking, waits, tmp_path) -> None:
    remote.statuses = [500] * 10
    with pytest.raises(ModelDownloadFailed, match="it answered 500; tried 5 times"):
        fetch(asking(), Format.ONNX)
    assert len(remote.asked) == 5
    assert in_cache(tmp_path) == ["models"]


def test_a_server_that_trickles_is_left(remote, asking, waits, monkeypatch) -> None:
    clock = iter(range(0, 10**9, 61))
    monkeypatch.setattr(source.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(pace, "SLOWEST_BYTES_PER_S", 10**9)
    with pytest.raises(ModelDownloadFailed, match="bytes a second, less than"):
        fetch(asking(), Format.ONNX)


@pytest.mark.parametrize("model", ["http://{}/gate.onnx", "http://{}/moved", "oci://{}/a/gate:v1"])
def test_an_answer_whose_head_never_ends_is_left(remote, asking, monkeypatch, model: str) -> None:
    monkeypatch.setattr(pace, "ANSWER_S", 0.2)
    remote.endless = {"/moved": "/gate.onnx"}
    remote.hints = {"/gate.onnx", "/v2/a/gate/manifests/v1"}
    with pytest.raises(
        ModelDownloadFailed, match=r"gate.*: no whole answer in 0 s|moved: no whole"
    ):
        fetch(asking(model=model.format(remote.address)), Format.ONNX)


def test_a_model_that_is_empty_is_told_and_not_kept(remote, asking, tmp_path) -> None:
    remote.answers["/gate.onnx"] = b""
    with pytest.raises(ModelUnsupported, match=r"gate\.onnx is an empty file"):
        fetch(asking(sha256=hashlib.sha256(b"").hexdigest()), Format.ONNX)
    assert in_cache(tmp_path) == ["models"]


def test_what_a_redirect_brings_is_neither_read_nor_unpacked(remote, asking, waits) -> None:
    remote.endless = {"/moved.onnx": "/gate.onnx"}
    moved = asking(model=f"http://{remote.address}/moved.onnx")
    assert fetch(moved, Format.ONNX).content == MODEL
    assert waits == []


def test_what_was_left_by_another_process_is_gone_on_with(remote, asking, waits) -> None:
    remote.cuts = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(ModelDownloadFailed, match="tried 5 times"):
        fetch(asking(), Format.ONNX)
    remote.asked.clear()
    remote.cuts.clear()
    assert fetch(asking(), Format.ONNX).content == MODEL
    assert remote.ranges == ["bytes=300000-"]


def test_a_resumed_file_of_another_digest_is_refused_and_forgotten(
    remote, asking, waits, tmp_path
) -> None:
    with pytest.raises(DigestMismatch):
        fetch(asking(sha256="0" * 64), Format.ONNX)
    assert in_cache(tmp_path) == ["models"]


def test_a_process_that_is_killed_leaves_a_cache_the_next_one_uses(
    remote, asking, tmp_path: Path
) -> None:
    remote.hold = threading.Event()
    code = (
        "from yoloserve.model.weights import fetch; from yoloserve.settings import Settings;"
        "from yoloserve.model.formats import Format; fetch(Settings(), Format.ONNX)"
    )
    wanted = asking()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "serving_image"),
        "YOLOSERVE_MODEL": wanted.model,
        "YOLOSERVE_SHA256": SHA256,
        "YOLOSERVE_CACHE_DIR": str(wanted.cache_dir),
    }
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in wanted.cache_dir.rglob(".part-*[0-9a-f]")):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not [name for name in in_cache(tmp_path) if len(name) == 64]
    remote.hold.set()
    remote.hold = None
    assert fetch(wanted, Format.ONNX).content == MODEL
    assert remote.ranges[-1] is not None
    assert in_cache(tmp_path) == [SHA256, "models"]


def test_what_nobody_came_back_for_goes_with_the_next_download(remote, asking, tmp_path) -> None:
    cached = store.Store(tmp_path / "cache" / "models")
    left = []
    for address in ("s3://old", "s3://held", "s3://new"):
        with cached.unfinished(address) as part:
            part.write_bytes(MODEL[:1000])
            store.validator_of(part).write_text(ETAG)
            left.append(part)
    old, held, new = left
    for part in (old, held):
        then = time.time() - store.LEFT_S - 60
        os.utime(part, (then, then))
    with cached.unfinished("s3://held"):
        fetch(asking(), Format.ONNX)
        assert {each.name for each in (held, store.validator_of(held))} <= set(in_cache(tmp_path))
    assert new.exists()
    assert not old.exists()
    assert not store.validator_of(old).exists()


def test_processes_that_want_the_same_file_download_it_once(remote, asking) -> None:
    wanted = asking(sha256=SHA256)
    found: list[bytes] = []
    remote.hold = threading.Event()
    threads = [
        threading.Thread(target=lambda: found.append(fetch(wanted, Format.ONNX).content))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    remote.hold.set()
    for thread in threads:
        thread.join(60)
    assert found == [MODEL] * 4
    assert len(remote.asked) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_told_and_left_clean(
    remote, asking, tmp_path, monkeypatch, code: int
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("yoloserve.model.weights.digest_of", full)  # as the last write would
    with pytest.raises(ModelDownloadFailed, match=os.strerror(code)):
        fetch(asking(), Format.ONNX)
    assert in_cache(tmp_path) == ["models"]


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({"model_token": "t0ken"}, "Bearer t0ken"),
        ({"model_username": "me", "model_password": "pa:ss"}, "Basic bWU6cGE6c3M="),
    ],
)
def test_credentials_are_sent(remote, asking, given, header: str) -> None:
    remote.authorized = lambda told: told == header
    assert fetch(asking(**given), Format.ONNX).content == MODEL


def test_credentials_that_are_missing_are_told_where_to_give_them(remote, asking) -> None:
    remote.authorized = lambda _: False
    with pytest.raises(ModelDownloadFailed, match="YOLOSERVE_MODEL_TOKEN"):
        fetch(asking(), Format.ONNX)


def test_a_secret_is_not_shown(asking) -> None:
    assert "t0ken" not in repr(asking(model_token="t0ken"))


@pytest.mark.parametrize("model", ["http://{}/gate.onnx", "oci://{}/vision/gate:v1"])
@pytest.mark.parametrize("token", ["t0ken\n", "t0ken t0ken", "t0kén"])
def test_a_token_that_no_header_takes_is_told_and_not_shown(
    remote, asking, waits, model: str, token: str
) -> None:
    with pytest.raises(StartupFailure, match="YOLOSERVE_MODEL_TOKEN has") as refused:
        fetch(asking(model=model.format(remote.address), model_token=token), Format.ONNX)
    assert "t0k" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["https", "oci", "s3", "odd"])
@pytest.mark.parametrize(
    "secret", ["Hunter/2", "Hunter?2", "Hunter#2", "2 Hunter", "Hunter2[x", "Hunter2@[x", "Hunter℀"]
)
def test_what_is_said_of_an_odd_address_has_no_password_in_it(
    asking, waits, scheme: str, secret: str
) -> None:
    model = f"{scheme}://me:{secret}@127.0.0.1:1/vision/gate.onnx"
    with pytest.raises(StartupFailure) as refused:
        fetch(asking(model=model), Format.ONNX)
    assert "unter" not in str(refused.value)


# ---- a registry ----


def pushed(remote: Remote, *files: tuple[str, bytes], tag: str = "v1") -> str:
    """Put an artifact into the registry as `oras push` does; return its manifest's digest."""
    layers = []
    for title, content in files:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        remote.answers[f"/v2/vision/gate/blobs/{digest}"] = content
        layers.append(
            {
                "mediaType": "application/octet-stream",
                "digest": digest,
                "size": len(content),
                "annotations": {"org.opencontainers.image.title": title},
            }
        )
    manifest = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    for reference in (tag, digest):
        remote.answers[f"/v2/vision/gate/manifests/{reference}"] = manifest
    return digest


def test_an_artifact_is_its_file(remote, asking, tmp_path) -> None:
    digest = pushed(remote, ("gate.onnx", MODEL))
    for reference in (":v1", f"@{digest}"):
        model = fetch(asking(model=f"oci://{remote.address}/vision/gate{reference}"), Format.ONNX)
        assert (model.content, model.sha256) == (MODEL, SHA256)
    blobs = [path for path, _ in remote.asked if "/blobs/" in path]
    assert len(blobs) == 1  # its digest is known from the manifest, so it is downloaded once


def test_an_index_leads_to_its_first_artifact(remote, asking) -> None:
    index = {"manifests": [{"digest": pushed(remote, ("gate.onnx", MODEL), tag="inner")}]}
    remote.answers["/v2/vision/gate/manifests/latest"] = json.dumps(index).encode()
    model = fetch(asking(model=f"oci://{remote.address}/vision/gate"), Format.ONNX)
    assert model.content == MODEL


@pytest.mark.parametrize("digest", [f"sha512:{'0' * 128}", "v1", "sha256:0/../../../token"])
@pytest.mark.parametrize("of", ["manifests", "layers"])
def test_what_no_sha256_names_is_not_asked_for(remote, asking, of: str, digest: str) -> None:
    """Nothing would prove it, also where the index itself is pinned."""
    pushed(remote, ("gate.onnx", MODEL))
    index = json.dumps({of: [{"digest": digest}]}).encode()
    pinned = f"sha256:{hashlib.sha256(index).hexdigest()}"
    remote.answers[f"/v2/vision/gate/manifests/{pinned}"] = index
    with pytest.raises(ModelUnsupported, match="not by a SHA-256"):
        fetch(asking(model=f"oci://{remote.address}/vision/gate@{pinned}"), Format.ONNX)
    assert len(remote.asked) == 1


def test_one_of_several_files_is_named(remote, asking) -> None:
    pushed(remote, ("README.md", b"read me"), ("gate.onnx", MODEL))
    address = f"oci://{remote.address}/vision/gate:v1"
    with pytest.raises(ModelUnsupported, match=r"README\.md, gate\.onnx: name one with #file"):
        fetch(asking(model=address), Format.ONNX)
    assert fetch(asking(model=f"{address}#gate.onnx"), Format.ONNX).content == MODEL


def test_a_registry_that_wants_a_token_tells_where_to_get_it(remote, asking) -> None:
    pushed(remote, ("gate.onnx", MODEL))
    remote.authorized = lambda told: told == "Bearer n0w"
    remote.challenge = (
        f'Bearer realm="http://{remote.address}/token",service="registry",'
        'scope="repository:vision/gate:pull"'
    )
    remote.answers["/token"] = b'{"token": "n0w"}'
    credentials = {"model_username": "me", "model_password": "pass"}
    address = f"oci://{remote.address}/vision/gate:v1"
    assert fetch(asking(model=address, **credentials), Format.ONNX).content == MODEL
    [(path, headers)] = [each for each in remote.asked if each[0].startswith("/token")]
    assert "service=registry&scope=repository%3Avision%2Fgate%3Apull" in path
    assert headers["authorization"].startswith("Basic ")


def test_a_registry_may_want_a_name_and_a_password(remote, asking) -> None:
    pushed(remote, ("gate.onnx", MODEL))
    remote.authorized = lambda told: told == "Basic bWU6cGFzcw=="
    remote.challenge = 'Basic realm="registry"'
    credentials = {"model_username": "me", "model_password": "pass"}
    address = f"oci://{remote.address}/vision/gate:v1"
    assert fetch(asking(model=address, **credentials), Format.ONNX).content == MODEL


def test_an_artifact_that_lies_about_its_digest_is_refused(remote, asking) -> None:
    pushed(remote, ("gate.onnx", MODEL))
    remote.answers[f"/v2/vision/gate/blobs/sha256:{SHA256}"] = MODEL + b"!"
    with pytest.raises(DigestMismatch):
        fetch(asking(model=f"oci://{remote.address}/vision/gate:v1"), Format.ONNX)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("oci://{}/vision/gate:v2", ModelNotFound),
        ("oci://{}/Vision Gate", InvalidSettings),
        ("oci://gate", InvalidSettings),
    ],
)
def test_an_artifact_that_is_not_there_is_told(remote, asking, address: str, error) -> None:
    with pytest.raises(error):
        fetch(asking(model=address.format(remote.address)), Format.ONNX)


def test_nulls_of_a_manifest_are_as_if_they_were_left_out(remote, asking) -> None:
    pushed(remote, ("gate.onnx", MODEL))
    layer = {"digest": f"sha256:{SHA256}", "annotations": None}
    manifest = {"layers": [layer], "manifests": None, "annotations": None}
    remote.answers["/v2/vision/gate/manifests/v1"] = json.dumps(manifest).encode()
    address = f"oci://{remote.address}/vision/gate:v1"
    assert fetch(asking(model=address), Format.ONNX).content == MODEL
    remote.answers["/v2/vision/gate/manifests/v1"] = b'{"layers": null}'
    with pytest.raises(ModelUnsupported, match="has the files none"):
        fetch(asking(model=address), Format.ONNX)


@pytest.mark.parametrize(
    "answered",
    [
        b"<html>login</html>",
        b"[]",
        b"1",
        b"\xff",
        b'{"layers": [1]}',
        b'{"layers": {}}',
        b'{"layers": [{}]}',
        b'{"layers": [{"digest": 5}]}',
        b'{"layers": [{"digest": "sha256:0", "annotations": []}]}',
        b'{"manifests": [1]}',
        b'{"manifests": {"a": 1}}',
        b"[" * 200_000,
    ],
    ids=lambda answered: answered[:60].decode(errors="replace"),
)
def test_what_is_no_manifest_is_told(remote, asking, answered: bytes) -> None:
    remote.answers["/v2/vision/gate/manifests/v1"] = answered
    with pytest.raises(ModelDownloadFailed, match="something else than a manifest") as failed:
        fetch(asking(model=f"oci://{remote.address}/vision/gate:v1"), Format.ONNX)
    assert len(str(failed.value)) < 300


@pytest.mark.parametrize(
    "answered", ["[]", '{"token": 5}', '{"token": "t0ken t0ken"}', '{"token": "t0ken\\n"}']
)
def test_what_is_no_token_is_told_and_not_shown(remote, asking, answered: str) -> None:
    remote.authorized = bool
    remote.challenge = f'Bearer realm="http://{remote.address}/token"'
    remote.answers["/token"] = answered.encode()
    with pytest.raises(ModelDownloadFailed, match="/token answered something else than") as failed:
        fetch(asking(model=f"oci://{remote.address}/vision/gate:v1"), Format.ONNX)
    assert "t0ken" not in str(failed.value)


@pytest.mark.parametrize("path", ["/v2/vision/gate/manifests/v1", "/token"])
def test_no_more_of_a_manifest_is_read_than_one_may_have(remote, asking, path, monkeypatch) -> None:
    """Nor of a token, or for longer than a download may take."""
    pushed(remote, ("gate.onnx", MODEL))
    remote.authorized = lambda told: bool(told) or path != "/token"
    remote.challenge = f'Bearer realm="http://{remote.address}/token"'
    remote.answers[path] = bytes(2 * oci.MOST_MANIFEST_BYTES + 2)
    remote.hold = threading.Event()  # that the second half waits for
    address = asking(model=f"oci://{remote.address}/vision/gate:v1")
    with pytest.raises(ModelDownloadFailed, match=f"{path} is larger than a manifest may be"):
        fetch(address, Format.ONNX)
    assert not remote.hold.is_set()
    remote.hold.set()
    clock = iter(range(0, 10**9, 61))
    monkeypatch.setattr(source.time, "monotonic", lambda: next(clock))
    remote.answers[path] = b"{}"
    with pytest.raises(ModelDownloadFailed, match=f"{path} sends . bytes a second, less than"):
        fetch(address, Format.ONNX)


# ---- S3 ----


@pytest.fixture
def bucket(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> Remote:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{remote.address}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    remote.answers["/models/gate.onnx"] = MODEL
    return remote


def test_an_object_is_downloaded_in_ranges_with_a_signature(bucket, asking, monkeypatch) -> None:
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 600_000)
    wanted = asking(model="s3://models/gate.onnx", sha256=SHA256)
    assert fetch(wanted, Format.ONNX).content == MODEL
    assert fetch(wanted, Format.ONNX).content == MODEL  # from the cache
    got = [headers for _, headers in bucket.asked if headers.get("range")]
    assert [headers["range"] for headers in got] == [
        "bytes=0-599999",
        f"bytes=600000-{len(MODEL) - 1}",
    ]
    assert all("AWS4-HMAC-SHA256" in headers["authorization"] for headers in got)


def test_a_store_that_trickles_is_left(bucket, asking, monkeypatch) -> None:
    monkeypatch.setattr(pace, "WINDOW_S", 0.5)
    bucket.drips_s = 0.05
    with pytest.raises(ModelDownloadFailed, match=r"^s3://models/gate.onnx sends \d+ bytes a s"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)
    assert len([each for each in bucket.ranges if each]) == 1


@pytest.mark.parametrize("trickles", ["/models", "/models/gate.onnx"], ids=["list", "error"])
def test_a_store_whose_answer_never_ends_is_left(bucket, asking, monkeypatch, trickles) -> None:
    monkeypatch.setattr(pace, "ANSWER_S", 1.0)
    name = "other" if trickles == "/models" else "gate"  # what is not there is looked for in a list
    bucket.drips_s = 0.05
    bucket.answers[trickles] = b"<ListBucketResult>" + 1000 * b" "
    bucket.refuses = True
    with pytest.raises(ModelDownloadFailed, match=f"{name}.onnx: no whole answer in 1 s"):
        fetch(asking(model=f"s3://models/{name}.onnx"), Format.ONNX)


@pytest.mark.parametrize(
    ("brings", "told"),
    [
        (lambda _: b"", "0 bytes came where 1000 were asked for"),
        (lambda part: part[:1], "1 bytes came where 1000 were asked for"),
        (lambda part: part[:-1] + b"!!", "more came than the part that was asked for"),
        (lambda part: part + bytes(2000), "more came than the part that was asked for"),
    ],
    ids=["nothing", "a byte", "a byte too many", "all, and more"],
)
def test_a_store_that_brings_another_part_than_was_asked_for_is_left(
    bucket, asking, monkeypatch, brings, told: str
) -> None:
    """A part of nothing would be asked for without end, and one without end fill the memory."""
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 1000)
    bucket.brings = brings
    with pytest.raises(ModelDownloadFailed, match=told):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)
    assert len([each for each in bucket.ranges if each]) == 1


def test_no_more_of_a_part_is_read_than_was_asked_for(bucket, asking, monkeypatch) -> None:
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 1000)
    bucket.brings = lambda _: MODEL
    bucket.hold = threading.Event()  # that the second half waits for
    with pytest.raises(ModelDownloadFailed, match="has to understand Range"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)
    assert not bucket.hold.is_set()
    bucket.hold.set()


def test_a_last_part_that_brings_too_much_is_not_kept(bucket, asking) -> None:
    bucket.brings = lambda part: part + b"!"
    with pytest.raises(ModelDownloadFailed, match=f"{len(MODEL) + 1} bytes came where"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)


def test_a_part_that_a_store_cannot_go_on_with_bars_no_later_start(bucket, asking) -> None:
    """Small objects come whole from stores that understand no Range."""
    bucket.brings = lambda _: MODEL
    wanted = asking(model="s3://models/gate.onnx")
    half_download(wanted)
    with pytest.raises(ModelDownloadFailed, match="bytes came where"):
        fetch(wanted, Format.ONNX)
    assert fetch(wanted, Format.ONNX).content == MODEL


def test_a_store_that_falls_silent_within_a_part_is_told(bucket, asking, monkeypatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.read_timeout", 0.2)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
    bucket.hold = threading.Event()
    with pytest.raises(ModelDownloadFailed, match="Read timeout"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)
    assert len([each for each in bucket.ranges if each]) == 2
    bucket.hold.set()


def test_a_folder_of_a_bucket_is_told_as_one(bucket, asking, tmp_path) -> None:
    bucket.answers["/models"] = (
        b"<ListBucketResult><KeyCount>1</KeyCount><Contents><Key>gate/a.onnx</Key><Size>5</Size>"
        b"</Contents></ListBucketResult>"
    )
    with pytest.raises(ModelNotFound, match=r"s3://models/gate, only a folder of that name: name"):
        fetch(asking(model="s3://models/gate"), Format.ONNX)
    assert in_cache(tmp_path) == ["models"]


def test_an_object_without_a_size_is_told(bucket, asking) -> None:
    bucket.tells_size = False
    with pytest.raises(ModelDownloadFailed, match="its store tells no size"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)


@pytest.mark.parametrize("address", ["s3://models/other.onnx", "s3://models", "s3://models/"])
def test_an_object_that_is_not_there_is_told(bucket, asking, address: str) -> None:
    with pytest.raises(ModelNotFound, match=address):
        fetch(asking(model=address), Format.ONNX)


def test_an_object_larger_than_allowed_is_not_begun(bucket, asking) -> None:
    with pytest.raises(ModelDownloadFailed, match="larger than 1000 bytes"):
        fetch(asking(model="s3://models/gate.onnx", max_model_bytes=1000), Format.ONNX)
    assert not [headers for _, headers in bucket.asked if headers.get("range")]


def half_download(wanted) -> None:
    with store.Store(wanted.cache_dir / "models").unfinished(wanted.model) as part:
        part.write_bytes(MODEL[:1000])
        store.validator_of(part).write_text(ETAG)


def test_an_object_half_downloaded_is_gone_on_with(bucket, asking) -> None:
    wanted = asking(model="s3://models/gate.onnx")
    half_download(wanted)
    assert fetch(wanted, Format.ONNX).content == MODEL
    assert f"bytes=1000-{len(MODEL) - 1}" in bucket.ranges


# What a store calls an object, and what it calls it where it sends a part of it.
NAMED = {
    "by ETag": (ETAG, '"v2"', lambda etag: etag),
    "not in ranges": (ETAG, '"v2"', lambda _: None),
    "weakly in ranges": (ETAG, '"v2"', lambda etag: f"W/{etag}"),
    "not at all": (None, None, lambda _: None),
}


@pytest.mark.parametrize("named", NAMED)
def test_an_object_is_whole_whatever_its_store_calls_it(
    bucket, asking, monkeypatch, named: str
) -> None:
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 600_000)
    bucket.etag, _, bucket.etag_of_ranges = NAMED[named]
    assert fetch(asking(model="s3://models/gate.onnx"), Format.ONNX).content == MODEL


@pytest.mark.parametrize(
    ("named", "other"),
    [  # nothing tells two of one size that no ETag names
        each for each in product(NAMED, (CHANGED, SHORTER)) if each != ("not at all", CHANGED)
    ],
)
def test_an_object_that_is_written_anew_while_it_is_read_is_begun_anew(
    bucket, asking, monkeypatch, named: str, other: bytes
) -> None:
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 600_000)
    bucket.etag, then, bucket.etag_of_ranges = NAMED[named]

    def change() -> None:
        if bucket.ranges[-1]:
            bucket.etag, bucket.answers["/models/gate.onnx"] = then, other

    bucket.decided = change
    assert fetch(asking(model="s3://models/gate.onnx"), Format.ONNX).content == other
    begun = [each for each in bucket.ranges if each and each.startswith("bytes=0-")]
    assert len(begun) >= 2


def test_an_object_that_is_always_another_is_told(bucket, asking, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("yoloserve.model.sources.s3.RANGE", 600_000)

    def change() -> None:
        bucket.etag = f'"v{len(bucket.asked)}"'

    bucket.decided = change
    with pytest.raises(ModelDownloadFailed, match="changed 3 times"):
        fetch(asking(model="s3://models/gate.onnx"), Format.ONNX)
    assert in_cache(tmp_path) == ["models"]
